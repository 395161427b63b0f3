package node

import (
	"context"
	"errors"
	"sync/atomic"

	"workmanager/ec2"
)

// ec2Cloud is a fleet of EC2 instances.
type ec2Cloud struct {
	n   *Node
	aws atomic.Pointer[ec2.AWS] // nil until it has begun
}

func (n *Node) newEC2Cloud() *ec2Cloud { return &ec2Cloud{n: n} }

func (c *ec2Cloud) begin(context.Context) (ec2.Config, ec2.Parts, error) {
	return ec2.Config{}, ec2.Parts{}, errors.New("not yet")
}

// terminates reports whether an instance ends when it powers itself off.
func (c *ec2Cloud) terminates(ctx context.Context, id string) (bool, error) {
	aws := c.aws.Load()
	if aws == nil {
		return false, errors.New("the fleet has not begun")
	}
	return aws.ShutdownTerminates(ctx, id)
}

func (c *ec2Cloud) end() error { return nil }
