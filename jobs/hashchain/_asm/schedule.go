package main

import "fmt"

// schedule puts the operations into an order that alternates between rotates or
// shifts, which a core of this kind does on one port only, and all others, so
// that the port is never both overrun and idle. window is how many operations
// it looks ahead, regs how many values may live at once, and in the last slack
// of these only what needs no further register is taken.
func (p *program) schedule(window, slack, regs int) ([]int, error) {
	const (
		loadAhead = 24 // operations from its use on which a constant is loaded
		stuck     = 64 // cycles without progress that are an error
		near      = 3  // operations from the oldest one that may go into the slack
	)
	uses := p.uses()
	live := 0
	cycleOf := make([]int, len(p.ops)) // when placed, 0: not yet
	for i, o := range p.ops {
		if o.kind == input {
			cycleOf[i] = 1
			live++
		}
	}
	var order []int
	place := func(i, cycle int) {
		cycleOf[i] = cycle
		order = append(order, i)
		live += 1 - p.dying(i, uses)
		for _, s := range p.ops[i].src {
			uses[s]--
		}
	}
	oldest, idle := 0, 0
	for cycle := 2; ; cycle++ {
		for oldest < len(p.ops) && cycleOf[oldest] > 0 {
			oldest++
		}
		if oldest == len(p.ops) {
			return order, nil
		}
		placed := 0
		take := func(want func(kind) bool) bool {
			seen := 0
			for i := oldest; i < len(p.ops) && seen < window; i++ {
				if cycleOf[i] > 0 {
					continue
				}
				o := &p.ops[i]
				if o.kind == load {
					continue
				}
				seen++
				if !want(o.kind) {
					continue
				}
				ready, loads := true, []int(nil)
				for _, s := range o.src {
					if cycleOf[s] == 0 && p.ops[s].kind == load {
						loads = append(loads, s)
					} else if cycleOf[s] == 0 || cycleOf[s] >= cycle {
						ready = false
					}
				}
				if !ready {
					continue
				}
				// A constant is loaded just before its use; loads are off the ports.
				after := live + len(loads) + 1 - p.dying(i, uses)
				most := max(live+len(loads), after)
				if most > regs || after > regs-slack && after > live && i-oldest > near {
					continue
				}
				for _, l := range loads {
					place(l, cycle-1)
				}
				place(i, cycle)
				placed++
				return true
			}
			return false
		}
		other := func(k kind) bool { return !rotates(k) }
		if take(rotates) {
			take(other)
		} else if take(other) {
			take(other)
		}
		if placed > 0 {
			idle = 0
		} else if idle++; idle > stuck {
			return nil, fmt.Errorf("no progress at operation %d of %d with %d values live", oldest, len(p.ops), live)
		}
	}
}

func rotates(k kind) bool { return k == ror || k == shr }

// uses counts the readers of each value; the outputs are read at the end.
func (p *program) uses() []int {
	uses := make([]int, len(p.ops))
	for _, o := range p.ops {
		for _, s := range o.src {
			uses[s]++
		}
	}
	for _, id := range p.outputs {
		uses[id]++
	}
	return uses
}

// dying counts the values that op i reads last.
func (p *program) dying(i int, uses []int) int {
	n := 0
	src := p.ops[i].src
	for at, s := range src {
		first, reads := true, 0
		for other, r := range src {
			if r == s {
				reads++
				first = first && other >= at
			}
		}
		if first && uses[s] == reads {
			n++
		}
	}
	return n
}

// inst is one instruction on registers: an op, or a move.
type inst struct {
	op    op // its src are registers
	dst   int
	move  bool // dst takes op.src[0]
	width int
}

// allocate gives every value a register. Inputs and outputs are in registers
// 0 to 7; a ternary operation overwrites one of its sources.
func (p *program) allocate(order []int, regs int) ([]inst, int, error) {
	uses := p.uses()
	reg := make([]int, len(p.ops))
	for i := range reg {
		reg[i] = -1
	}
	var free []int // first in, first out
	for r := 8; r < regs; r++ {
		free = append(free, r)
	}
	for i, id := range p.inputs {
		reg[id] = i
	}
	wanted := map[int]int{} // outputs by value
	for i, id := range p.outputs {
		wanted[id] = i
	}
	most := 0
	var out []inst
	for _, i := range order {
		o := p.ops[i]
		in := inst{op: o}
		in.op.src = nil
		for _, s := range o.src {
			in.op.src = append(in.op.src, reg[s])
		}
		var died []int // registers, without doubles
		for _, s := range o.src {
			uses[s]--
		}
		for at, s := range o.src {
			if uses[s] == 0 && reg[s] >= 0 && !contains(died, reg[s]) && first(o.src, at) {
				died = append(died, reg[s])
			}
		}
		if o.kind == tern && len(died) > 0 {
			// It overwrites a source that dies, whichever that is.
			in.dst = died[0]
			free = append(free, died[1:]...)
		} else {
			free = append(free, died...)
			if len(free) == 0 {
				return nil, 0, fmt.Errorf("no register for operation %d", i)
			}
			at := 0
			if w, ok := wanted[i]; ok {
				for n, r := range free {
					if r == w {
						at = n
					}
				}
			}
			in.dst = free[at]
			free = append(free[:at:at], free[at+1:]...)
		}
		if o.kind == tern && len(died) == 0 {
			out = append(out, inst{op: op{src: []int{in.op.src[0]}}, dst: in.dst, move: true})
			in.op.src[0] = in.dst
		}
		most = max(most, regs-len(free))
		reg[i] = in.dst
		out = append(out, in)
	}
	// What is not where the next step wants it moves there, through a free register.
	at := map[int]int{} // by register, the output in it
	for i, id := range p.outputs {
		at[reg[id]] = i
	}
	move := func(to, from int) {
		out = append(out, inst{op: op{src: []int{from}}, dst: to, move: true})
		at[to] = at[from]
		delete(at, from)
	}
	for i, id := range p.outputs {
		for r, o := range at {
			if o == i {
				reg[id] = r
			}
		}
		if reg[id] == i {
			continue
		}
		if _, taken := at[i]; taken {
			move(free[0], i)
		}
		move(i, reg[id])
		if len(free) > 0 {
			for r := range regs {
				if _, taken := at[r]; !taken && r >= 8 {
					free[0] = r
					break
				}
			}
		}
	}
	return out, most, nil
}

func contains(list []int, x int) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

// first reports whether no earlier source is the same value.
func first(src []int, at int) bool {
	for _, s := range src[:at] {
		if s == src[at] {
			return false
		}
	}
	return true
}
