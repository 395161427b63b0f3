// Package ec2 sizes a fleet of workers by the work there is, and owns their
// machines: instances that Amazon lends, or processes on this machine.
//
// [Plan] decides. It is a pure function of the backlog, the machines, their
// prices and the time, so all of the policy can be tested and simulated. A
// [Scheduler] reads, plans and acts, on the one node of the pair that leads; a
// [Cloud] has the machines.
//
// That no machine is forgotten rests on tags, and that no slot is filled twice
// on tokens, not on there being one leader. A slot is a number below the most
// workers there may be. What a launch asks for follows from its slot alone, and
// each launch carries the token of the slot and its generation, for which EC2
// gives one instance however often and by whomever it is asked. The generation
// goes on only when the former one's instance was seen dead, which is final. So
// at most one live instance has a slot, whatever two nodes believe of each other.
//
// On a Spot instance the package also hears of the notice that it will be taken
// away, two minutes before ([Notices]).
package ec2
