package ec2_test

import (
	"testing"

	"workmanager/ec2"
	"workmanager/ec2/ec2test"
)

// TestAWS_rights tries what a fleet does and does none of it.
func TestAWS_rights(t *testing.T) {
	denied := ""
	fake := ec2test.New(ec2test.Options{Fault: func(c ec2test.Call) *ec2test.Fault {
		if c.Action != denied {
			return nil
		}
		return &ec2test.Fault{Code: "UnauthorizedOperation", Status: 403, Text: "You are not authorized to perform this operation."}
	}})
	cfg := ec2.DefaultConfig()
	cfg.Cluster, cfg.Types, cfg.Subnets = "test", []string{"c7a.large"}, []ec2.Subnet{{ID: "subnet-a", Zone: "zone-1"}}
	a := awsAt(t, serve(t, fake), awsConfig())
	r := slotRequest(cfg, 0, 1)
	check := func(want map[string]bool) {
		t.Helper()
		got := map[string]bool{}
		for _, right := range a.Rights(t.Context(), r) {
			got[right.Action] = right.Err == nil
			if right.Denied != (right.Action == "ec2:"+denied) {
				t.Errorf("%s: denied %t: %v", right.Action, right.Denied, right.Err)
			}
		}
		for action, may := range want {
			if allowed, tried := got[action]; !tried || allowed != may {
				t.Errorf("%s: tried %t, allowed %t, want %t", action, tried, allowed, may)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%v were tried, want %v", got, want)
		}
	}
	check(map[string]bool{"ec2:DescribeInstances": true, "ec2:RunInstances": true})
	if n := len(fake.All()); n != 0 {
		t.Fatalf("trying has launched %d instances", n)
	}
	if _, err := a.Launch(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	check(map[string]bool{"ec2:DescribeInstances": true, "ec2:RunInstances": true, "ec2:TerminateInstances": true, "ec2:DescribeInstanceAttribute": true})
	for _, denied = range []string{"RunInstances", "TerminateInstances"} {
		want := map[string]bool{"ec2:DescribeInstances": true, "ec2:RunInstances": true, "ec2:TerminateInstances": true, "ec2:DescribeInstanceAttribute": true}
		want["ec2:"+denied] = false
		check(want)
	}
	if list := fake.All(); len(list) != 1 || !list[0].Alive() {
		t.Errorf("after all: %+v, want the one instance alive", list)
	}
}
