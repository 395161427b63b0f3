package ec2

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Tags of an instance. The cluster's name is what all of a fleet have in
// common: two fleets in one account never see each other's machines.
const (
	tagCluster = "workmanager:cluster"
	tagRole    = "workmanager:role"
	tagSlot    = "workmanager:slot"
	tagGen     = "workmanager:gen"
	roleWorker = "worker"
	tagName    = "Name"
)

// AWSConfig is what all launches have in common. It must be the same on both
// nodes, byte for byte: a token with other parameters is refused.
type AWSConfig struct {
	Cluster       string
	Image         string // AMI
	SecurityGroup string
	UserData      []byte // no secret: every process on the instance can read it
	// Programs are the architectures that UserData has a program for, as keys; nil:
	// all. Types of others are not launched.
	Programs   map[string]string
	RootDevice string // "" leaves the image's volume as it is
	RootGiB    int32
	// PublicAddress gives instances a public IPv4 address, which is paid for;
	// nodes are reached without.
	PublicAddress bool
}

// AWS is the Cloud of Amazon. It decides nothing. It is safe for concurrent use.
type AWS struct {
	cfg    AWSConfig
	client *ec2.Client
}

// NewAWS returns an AWS with the region and the credentials of the environment,
// or of the instance that this is. AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_EC2 are
// honoured. It makes no call to EC2.
func NewAWS(ctx context.Context, cfg AWSConfig) (*AWS, error) {
	c, err := config.LoadDefaultConfig(ctx,
		config.WithEC2IMDSRegion(),
		// The next decision is the next try: a token of its own makes that safe.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		return nil, fmt.Errorf("find out how to reach AWS; AWS_REGION is needed where this is no instance: %w", err)
	}
	if c.HTTPClient == nil { // then it would be the client's own, which has none yet where it is wrapped
		c.HTTPClient = awshttp.NewBuildableClient()
	}
	return &AWS{cfg: cfg, client: ec2.NewFromConfig(c, func(o *ec2.Options) { o.HTTPClient = wholeBody{c.HTTPClient} })}, nil
}

// wholeBody sends each request with its body in memory. The SDK closes the body
// as soon as the head of the answer is in, and net/http then drops a connection
// that it has not done with: a fast server on this machine lost 5 to 12 calls in
// a thousand that way. Closing this body does nothing.
type wholeBody struct{ next aws.HTTPClient }

func (w wholeBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return w.next.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the body of a request: %w", err)
	}
	_ = r.Body.Close() // it was read to its end
	r = r.Clone(r.Context())
	r.ContentLength = int64(len(body))
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return w.next.Do(r)
}

// Instances returns every worker of the cluster. See Cloud.
func (a *AWS) Instances(ctx context.Context) ([]Instance, error) {
	pages := ec2.NewDescribeInstancesPaginator(a.client, &ec2.DescribeInstancesInput{
		Filters: []types.Filter{
			{Name: aws.String("tag:" + tagCluster), Values: []string{a.cfg.Cluster}},
			{Name: aws.String("tag:" + tagRole), Values: []string{roleWorker}},
		},
		MaxResults: aws.Int32(1000),
	})
	var out []Instance
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("describe instances: %w", err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				out = append(out, instanceOf(i))
			}
		}
	}
	return out, nil
}

func instanceOf(i types.Instance) Instance {
	out := Instance{
		ID: aws.ToString(i.InstanceId), Slot: -1, Gen: -1, Address: aws.ToString(i.PrivateIpAddress), LaunchedAt: aws.ToTime(i.LaunchTime).UTC(),
		Offer: Offer{Type: string(i.InstanceType), Subnet: aws.ToString(i.SubnetId), Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot},
	}
	if i.Placement != nil {
		out.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.State != nil {
		out.State = stateOf(i.State.Name)
	}
	if i.StateReason != nil {
		out.Reason = strings.TrimSpace(aws.ToString(i.StateReason.Code) + " " + aws.ToString(i.StateReason.Message))
	}
	for _, t := range i.Tags {
		n, err := strconv.Atoi(aws.ToString(t.Value))
		if err != nil || n < 0 {
			continue // of no slot: it is reported and, if nobody hears of it, ended
		}
		switch aws.ToString(t.Key) {
		case tagSlot:
			out.Slot = n
		case tagGen:
			out.Gen = n
		}
	}
	if out.Slot < 0 || out.Gen < 0 {
		out.Slot, out.Gen = -1, -1
	}
	return out
}

func stateOf(s types.InstanceStateName) State {
	switch s {
	case types.InstanceStateNamePending:
		return Pending
	case types.InstanceStateNameStopping, types.InstanceStateNameStopped:
		return Stopped
	case types.InstanceStateNameShuttingDown:
		return ShuttingDown
	case types.InstanceStateNameTerminated:
		return Terminated
	}
	return Running
}

// Launch asks for one instance. See Cloud.
func (a *AWS) Launch(ctx context.Context, r Request) (Instance, error) {
	if arch := ArchOf(r.Type); a.cfg.Programs != nil && a.cfg.Programs[arch] == "" {
		return Instance{}, &Refusal{Kind: Capacity, Code: "NoBinary", Text: r.Type + " is for " + arch + ", and the nodes have no program for that"}
	}
	out, err := a.client.RunInstances(ctx, a.input(r))
	if err != nil {
		return Instance{}, refusalOf(err)
	}
	if len(out.Instances) != 1 {
		return Instance{}, fmt.Errorf("launch %s: %d instances in the answer", r.Token, len(out.Instances))
	}
	return instanceOf(out.Instances[0]), nil
}

// input depends on nothing but the settings, the slot and its generation.
func (a *AWS) input(r Request) *ec2.RunInstancesInput {
	tags := []types.Tag{
		{Key: aws.String(tagName), Value: aws.String("workmanager " + a.cfg.Cluster + " worker " + strconv.Itoa(r.Slot.Slot))},
		{Key: aws.String(tagCluster), Value: aws.String(a.cfg.Cluster)},
		{Key: aws.String(tagRole), Value: aws.String(roleWorker)},
		{Key: aws.String(tagSlot), Value: aws.String(strconv.Itoa(r.Slot.Slot))},
		{Key: aws.String(tagGen), Value: aws.String(strconv.Itoa(r.Gen))},
	}
	in := &ec2.RunInstancesInput{
		ClientToken:  aws.String(r.Token),
		ImageId:      aws.String(a.cfg.Image),
		InstanceType: types.InstanceType(r.Type),
		MinCount:     aws.Int32(1),
		MaxCount:     aws.Int32(1),
		UserData:     aws.String(base64.StdEncoding.EncodeToString(a.cfg.UserData)),
		// An instance that powers itself off is gone: it needs no rights for that.
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired,
			HttpPutResponseHopLimit: aws.Int32(1), InstanceMetadataTags: types.InstanceMetadataTagsStateEnabled,
		},
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex: aws.Int32(0), SubnetId: aws.String(r.Subnet), DeleteOnTermination: aws.Bool(true),
			AssociatePublicIpAddress: aws.Bool(a.cfg.PublicAddress),
		}},
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeInstance, Tags: tags},
			{ResourceType: types.ResourceTypeVolume, Tags: tags},
		},
	}
	if a.cfg.SecurityGroup != "" {
		in.NetworkInterfaces[0].Groups = []string{a.cfg.SecurityGroup}
	}
	if a.cfg.RootDevice != "" {
		disk := &types.EbsBlockDevice{Encrypted: aws.Bool(true), DeleteOnTermination: aws.Bool(true), VolumeType: types.VolumeTypeGp3}
		if a.cfg.RootGiB > 0 {
			disk.VolumeSize = aws.Int32(a.cfg.RootGiB)
		}
		in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String(a.cfg.RootDevice), Ebs: disk}}
	}
	if r.Spot {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{
			MarketType: types.MarketTypeSpot,
			SpotOptions: &types.SpotMarketOptions{
				SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
			},
		}
	}
	return in
}

// apiError is what the SDK makes of EC2's no.
type apiError interface {
	error
	ErrorCode() string
	ErrorMessage() string
}

// refusalOf turns EC2's no into a Refusal. Whatever else went wrong may have
// left an instance.
func refusalOf(err error) error {
	var no apiError
	if !errors.As(err, &no) {
		return fmt.Errorf("run an instance: %w", err)
	}
	r := &Refusal{Code: no.ErrorCode(), Text: no.ErrorMessage()}
	switch code := r.Code; {
	case slices.Contains(capacityCodes, code):
		r.Kind = Capacity
	case code == "VcpuLimitExceeded", code == "MaxSpotInstanceCountExceeded", code == "InstanceLimitExceeded":
		r.Kind = Quota
	case code == "RequestLimitExceeded", code == "Throttling", code == "ThrottlingException", code == "ResourceLimitExceeded":
		r.Kind = Throttled
	case code == "IdempotentInstanceTerminated":
		r.Kind = Dead
	case code == "IdempotentParameterMismatch":
		r.Kind = Mismatch
	case code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted":
		r.Kind = NoSpot
	case code == "InternalError", code == "InternalFailure", code == "Unavailable", code == "ServiceUnavailable", code == "RequestTimeout":
		return fmt.Errorf("run an instance: %w", err) // done or not
	case statusOf(err) >= 500 && code != "UnauthorizedOperation":
		return fmt.Errorf("run an instance: %w", err)
	}
	return r
}

// capacityCodes say that one type in one zone has run out.
var capacityCodes = []string{
	"InsufficientInstanceCapacity", "UnfulfillableCapacity", "InsufficientFreeAddressesInSubnet", "InsufficientHostCapacity",
	"InsufficientReservedInstanceCapacity", "InsufficientCapacityOnHost", "SpotMaxPriceTooLow", "Unsupported",
}

func statusOf(err error) int {
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) {
		return status.HTTPStatusCode()
	}
	return 0
}

// Terminate ends instances. One that EC2 does not know keeps the others from
// ending with it, so then each is asked for by itself; that it is not known is
// no error, since it may not be shown so far: it is asked for again.
func (a *AWS) Terminate(ctx context.Context, ids []string) error {
	err := a.terminate(ctx, ids)
	if err == nil || len(ids) < 2 || !unknownInstance(err) {
		return err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, a.terminate(ctx, []string{id}))
	}
	return errors.Join(errs...)
}

func (a *AWS) terminate(ctx context.Context, ids []string) error {
	_, err := a.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
	if err != nil {
		return fmt.Errorf("terminate instances: %w", err)
	}
	return nil
}

func unknownInstance(err error) bool {
	var no apiError
	return errors.As(err, &no) && strings.HasPrefix(no.ErrorCode(), "InvalidInstanceID")
}

// SpotPrices returns the present price of each type in each of the zones, in
// dollars an hour.
func (a *AWS) SpotPrices(ctx context.Context, names []string, subnets []Subnet) (map[Offer]float64, error) {
	in := &ec2.DescribeSpotPriceHistoryInput{
		ProductDescriptions: []string{"Linux/UNIX"}, StartTime: aws.Time(time.Now()),
	}
	for _, n := range names {
		in.InstanceTypes = append(in.InstanceTypes, types.InstanceType(n))
	}
	out := map[Offer]float64{}
	at := map[Offer]time.Time{}
	pages := ec2.NewDescribeSpotPriceHistoryPaginator(a.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("read Spot prices: %w", err)
		}
		for _, p := range page.SpotPriceHistory {
			price, err := strconv.ParseFloat(aws.ToString(p.SpotPrice), 64)
			if err != nil {
				continue // unknown
			}
			for _, s := range subnets {
				o := Offer{Type: string(p.InstanceType), Subnet: s.ID, Zone: s.Zone, Spot: true}
				if s.Zone == aws.ToString(p.AvailabilityZone) && !aws.ToTime(p.Timestamp).Before(at[o]) {
					out[o], at[o] = price, aws.ToTime(p.Timestamp)
				}
			}
		}
	}
	return out, nil
}

// ShutdownTerminates reports whether the instance ends when it powers itself off.
func (a *AWS) ShutdownTerminates(ctx context.Context, id string) (bool, error) {
	out, err := a.client.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{
		InstanceId: aws.String(id), Attribute: types.InstanceAttributeNameInstanceInitiatedShutdownBehavior,
	})
	if err != nil {
		return false, fmt.Errorf("read what shutdown does to instance %s: %w", id, err)
	}
	b := out.InstanceInitiatedShutdownBehavior
	return b != nil && aws.ToString(b.Value) == string(types.ShutdownBehaviorTerminate), nil
}

// Right is one thing that a fleet must be allowed to do, and EC2's answer.
type Right struct {
	Action string
	Err    error // nil: it may
	Denied bool  // the answer was that it may not; else it could not be tried
	Note   string
}

// Rights tries what a fleet does, without doing it: a launch of r and the end of
// an instance as dry runs, and reads for real. A launch that would be allowed has
// the right to tag too.
func (a *AWS) Rights(ctx context.Context, r Request) []Right {
	var out []Right
	add := func(action string, err error, note string) {
		var no apiError
		if errors.As(err, &no) && no.ErrorCode() == "DryRunOperation" {
			err = nil
		}
		denied := errors.As(err, &no) && slices.Contains(deniedCodes, no.ErrorCode())
		out = append(out, Right{Action: action, Err: err, Denied: denied, Note: note})
	}
	have, err := a.Instances(ctx)
	add("ec2:DescribeInstances", err, fmt.Sprintf("%d instances of this cluster are shown", len(have)))
	in := a.input(r)
	in.DryRun, in.ClientToken = aws.Bool(true), nil
	_, err = a.client.RunInstances(ctx, in)
	add("ec2:RunInstances", err, fmt.Sprintf("%s in %s with %s, and its tags", r.Type, r.Subnet, a.cfg.Image))
	for _, i := range have {
		if i.State.Dead() {
			continue
		}
		_, err := a.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{i.ID}, DryRun: aws.Bool(true)})
		add("ec2:TerminateInstances", err, "of "+i.ID)
		_, err = a.ShutdownTerminates(ctx, i.ID)
		add("ec2:DescribeInstanceAttribute", err, "of "+i.ID)
		break
	}
	if r.Spot {
		_, err := a.SpotPrices(ctx, []string{r.Type}, []Subnet{{ID: r.Subnet, Zone: r.Zone}})
		add("ec2:DescribeSpotPriceHistory", err, "of "+r.Type)
	}
	return out
}

// deniedCodes are how EC2 says that a right is missing, or that it does not know
// the caller.
var deniedCodes = []string{"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "InvalidClientTokenId", "OptInRequired", "Blocked"}
