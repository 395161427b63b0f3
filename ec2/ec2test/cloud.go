package ec2test

import (
	"context"
	"errors"
	"strconv"

	"workmanager/ec2"
)

const (
	slotTag = "workmanager:slot"
	genTag  = "workmanager:gen"
)

// Cloud returns the fake as a Cloud, without HTTP and the SDK between. Version
// stands for all parameters of a launch that a slot does not decide.
func (e *EC2) Cloud(version string) ec2.Cloud { return cloud{e, version} }

type cloud struct {
	e       *EC2
	version string
}

var errLost = errors.New("connection cut before the reply")

func (c cloud) Instances(ctx context.Context) ([]ec2.Instance, error) {
	var out []ec2.Instance
	for page := 0; ; page++ {
		list, more, no := c.e.describe(page, nil, func(shown) bool { return true })
		if no != nil {
			return nil, no
		}
		for _, s := range list {
			out = append(out, s.instance())
		}
		if !more {
			return out, ctx.Err()
		}
	}
}

func (s shown) instance() ec2.Instance {
	i := ec2.Instance{
		ID: s.ID, State: s.state, Slot: number(s.Tags[slotTag]), Gen: number(s.Tags[genTag]), Address: s.Address, LaunchedAt: s.LaunchedAt,
		Offer: ec2.Offer{Type: s.Type, Subnet: s.Subnet, Zone: s.Zone, Spot: s.Spot},
	}
	if s.state.Dead() {
		i.Reason = s.Reason
	}
	return i
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

func (c cloud) Launch(_ context.Context, r ec2.Request) (ec2.Instance, error) {
	l := launch{count: 1, Instance: Instance{
		Type: r.Type, Subnet: r.Subnet, Spot: r.Spot, Token: r.Token, ShutdownTerminates: true,
		Tags: map[string]string{slotTag: strconv.Itoa(r.Slot.Slot), genTag: strconv.Itoa(r.Gen)},
	}}
	l.params = c.version + " " + r.Offer.String() + " " + tagString(l.Tags)
	out, no := c.e.run(l)
	switch {
	case no != nil && no.lost:
		return ec2.Instance{}, errLost
	case no != nil:
		return ec2.Instance{}, &ec2.Refusal{Kind: kindOf(no.code), Code: no.code, Text: no.text}
	}
	return c.e.answer(out[0]).instance(), nil
}

func kindOf(code string) ec2.Kind {
	switch code {
	case "InsufficientInstanceCapacity":
		return ec2.Capacity
	case "VcpuLimitExceeded":
		return ec2.Quota
	case "RequestLimitExceeded":
		return ec2.Throttled
	case "IdempotentInstanceTerminated":
		return ec2.Dead
	case "IdempotentParameterMismatch":
		return ec2.Mismatch
	case "AuthFailure.ServiceLinkedRoleCreationNotPermitted":
		return ec2.NoSpot
	}
	return ec2.Wrong
}

func (c cloud) Terminate(_ context.Context, ids []string) error {
	if no := c.e.terminate(ids, false); no != nil {
		return no
	}
	return nil
}
