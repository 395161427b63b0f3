package ec2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// debianOwner is the account that publishes Debian's images: the name of an
// image proves nothing without it.
const debianOwner = "136693071363"

// Place is where instances are launched and from what.
type Place struct {
	Image         string
	RootDevice    string // of the image; "" if EC2 does not tell
	RootGiB       int32  // its size there, likewise 0
	Subnets       []Subnet
	SecurityGroup string
}

// Find completes a place by calls of EC2: the newest image of Debian 12 for the
// types' architecture, the default subnet of each zone, the security group that
// has the tags of the cluster's workers. Two nodes that ask at other times may
// find other images, and what they ask for under one token then differs, so a
// deployment names all of it. Safe for concurrent use.
func (a *AWS) Find(ctx context.Context, want Place, arch string) (Place, error) {
	err := errors.Join(a.findImage(ctx, &want, arch), a.findSubnets(ctx, &want), a.findGroup(ctx, &want))
	return want, err
}

func (a *AWS) findImage(ctx context.Context, want *Place, arch string) error {
	in := &ec2.DescribeImagesInput{}
	if want.Image != "" {
		in.ImageIds = []string{want.Image}
	} else {
		machine := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[arch]
		in.Owners = []string{debianOwner}
		in.Filters = []types.Filter{
			filter("name", "debian-12-"+arch+"-2*"), filter("architecture", machine), filter("root-device-type", "ebs"),
			filter("virtualization-type", "hvm"), filter("state", "available"),
		}
	}
	out, err := a.client.DescribeImages(ctx, in)
	var no apiError
	if errors.As(err, &no) && want.Image != "" && (no.ErrorCode() == "InvalidAction" || slices.Contains(deniedCodes, no.ErrorCode())) {
		return nil // its volume is then as the image has it
	}
	if err != nil {
		return fmt.Errorf("look for the image: %w", err)
	}
	if len(out.Images) == 0 {
		return fmt.Errorf("there is no image %s: give --ami", cmp.Or(want.Image, "of Debian 12 for "+arch+" here"))
	}
	newest := slices.MaxFunc(out.Images, func(x, y types.Image) int {
		return cmp.Or(cmp.Compare(aws.ToString(x.CreationDate), aws.ToString(y.CreationDate)), cmp.Compare(aws.ToString(x.ImageId), aws.ToString(y.ImageId)))
	})
	want.Image, want.RootDevice = aws.ToString(newest.ImageId), aws.ToString(newest.RootDeviceName)
	for _, d := range newest.BlockDeviceMappings {
		if d.Ebs != nil && aws.ToString(d.DeviceName) == want.RootDevice {
			want.RootGiB = aws.ToInt32(d.Ebs.VolumeSize)
		}
	}
	return nil
}

// findSubnets finds the subnets, or the zones of those that are named without.
func (a *AWS) findSubnets(ctx context.Context, want *Place) error {
	in := &ec2.DescribeSubnetsInput{}
	for _, s := range want.Subnets {
		if s.Zone == "" {
			in.SubnetIds = append(in.SubnetIds, s.ID)
		}
	}
	if len(want.Subnets) > 0 && len(in.SubnetIds) == 0 {
		return nil
	}
	if len(want.Subnets) == 0 {
		in.Filters = []types.Filter{filter("default-for-az", "true")}
	}
	out, err := a.client.DescribeSubnets(ctx, in)
	if err != nil {
		return fmt.Errorf("look for the subnets: %w", err)
	}
	zones := map[string]string{}
	for _, s := range out.Subnets {
		zones[aws.ToString(s.SubnetId)] = aws.ToString(s.AvailabilityZone)
	}
	if len(want.Subnets) == 0 {
		for id, zone := range zones {
			want.Subnets = append(want.Subnets, Subnet{ID: id, Zone: zone})
		}
		if len(want.Subnets) == 0 {
			return errors.New("there is no default subnet here: give --subnets")
		}
		slices.SortFunc(want.Subnets, func(x, y Subnet) int { return cmp.Or(cmp.Compare(x.Zone, y.Zone), cmp.Compare(x.ID, y.ID)) })
		return nil
	}
	want.Subnets = slices.Clone(want.Subnets)
	for i := range want.Subnets {
		s := &want.Subnets[i]
		if s.Zone = cmp.Or(s.Zone, zones[s.ID]); s.Zone == "" {
			return fmt.Errorf("there is no subnet %s here: mend --subnets", s.ID)
		}
	}
	return nil
}

// findGroup finds the security group of the cluster's workers.
func (a *AWS) findGroup(ctx context.Context, want *Place) error {
	if want.SecurityGroup != "" {
		return nil
	}
	out, err := a.client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{filter("tag:"+tagCluster, a.cfg.Cluster), filter("tag:"+tagRole, roleWorker)},
	})
	if err != nil {
		return fmt.Errorf("look for the security group: %w", err)
	}
	if len(out.SecurityGroups) != 1 {
		var ids []string
		for _, g := range out.SecurityGroups {
			ids = append(ids, aws.ToString(g.GroupId))
		}
		return fmt.Errorf("%d security groups have the tags %s=%s and %s=%s, and one is wanted (%s): give --worker-sg",
			len(ids), tagCluster, a.cfg.Cluster, tagRole, roleWorker, cmp.Or(strings.Join(ids, " "), "none"))
	}
	want.SecurityGroup = aws.ToString(out.SecurityGroups[0].GroupId)
	return nil
}

func filter(name, value string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: []string{value}}
}
