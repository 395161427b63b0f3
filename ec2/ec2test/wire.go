package ec2test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"workmanager/ec2"
)

const maxBody = 1 << 20

// ServeHTTP answers as EC2 does: forms in, XML out.
func (e *EC2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var out any
	var no *failure
	switch action := r.PostForm.Get("Action"); action {
	case "RunInstances":
		out, no = e.wireRun(r.PostForm)
	case "DescribeInstances":
		out, no = e.wireDescribe(r.PostForm)
	case "TerminateInstances":
		out, no = e.wireTerminate(r.PostForm)
	case "DescribeInstanceAttribute":
		out, no = e.wireAttribute(r.PostForm)
	default:
		no = refuse(400, "InvalidAction", "The action %s is not valid for this web service.", action)
	}
	switch {
	case no != nil && no.lost:
		panic(http.ErrAbortHandler) // cuts the connection
	case no != nil:
		reply(w, no.status, wireErrors{Errors: []wireError{{no.code, no.text}}, RequestID: "fake"})
	default:
		reply(w, http.StatusOK, out)
	}
}

func reply(w http.ResponseWriter, status int, body any) {
	text, err := xml.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), text...)) // the client has gone
}

type wireError struct{ Code, Message string }

type wireErrors struct {
	XMLName   xml.Name    `xml:"Response"`
	Errors    []wireError `xml:"Errors>Error"`
	RequestID string
}

type wireState struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

type wireTag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

type wireReason struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

type wireInstance struct {
	ID          string      `xml:"instanceId"`
	Image       string      `xml:"imageId"`
	State       wireState   `xml:"instanceState"`
	Address     string      `xml:"privateIpAddress"`
	ClientToken string      `xml:"clientToken,omitempty"`
	Type        string      `xml:"instanceType"`
	LaunchTime  string      `xml:"launchTime"`
	Zone        string      `xml:"placement>availabilityZone"`
	Subnet      string      `xml:"subnetId"`
	Lifecycle   string      `xml:"instanceLifecycle,omitempty"`
	Reason      *wireReason `xml:"stateReason"`
	Tags        []wireTag   `xml:"tagSet>item"`
}

type wireReservation struct {
	ID        string         `xml:"reservationId"`
	Owner     string         `xml:"ownerId"`
	Instances []wireInstance `xml:"instancesSet>item"`
}

type wireRunReply struct {
	XMLName   xml.Name `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ RunInstancesResponse"`
	RequestID string   `xml:"requestId"`
	wireReservation
}

type wireDescribeReply struct {
	XMLName      xml.Name          `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstancesResponse"`
	RequestID    string            `xml:"requestId"`
	Reservations []wireReservation `xml:"reservationSet>item"`
	NextToken    string            `xml:"nextToken,omitempty"`
}

type wireChange struct {
	ID      string    `xml:"instanceId"`
	Current wireState `xml:"currentState"`
}

type wireTerminateReply struct {
	XMLName   xml.Name     `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ TerminateInstancesResponse"`
	RequestID string       `xml:"requestId"`
	Changes   []wireChange `xml:"instancesSet>item"`
}

type wireValue struct {
	Value string `xml:"value"`
}

type wireAttributeReply struct {
	XMLName   xml.Name   `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstanceAttributeResponse"`
	RequestID string     `xml:"requestId"`
	ID        string     `xml:"instanceId"`
	UserData  *wireValue `xml:"userData"`
	Shutdown  *wireValue `xml:"instanceInitiatedShutdownBehavior"`
}

var stateCodes = map[ec2.State]int{ec2.Pending: 0, ec2.Running: 16, ec2.ShuttingDown: 32, ec2.Terminated: 48, ec2.Stopped: 80}

func wireOf(s shown) wireInstance {
	w := wireInstance{
		ID: s.ID, Image: s.Image, State: wireState{stateCodes[s.state], string(s.state)}, Address: s.Address, ClientToken: s.Token,
		Type: s.Type, LaunchTime: s.LaunchedAt.UTC().Format("2006-01-02T15:04:05.000Z"), Zone: s.Zone, Subnet: s.Subnet,
	}
	if s.Spot {
		w.Lifecycle = "spot"
	}
	if code, text, ok := strings.Cut(s.Reason, ": "); ok && s.state.Dead() {
		w.Reason = &wireReason{code, text}
	}
	for k, v := range s.Tags {
		w.Tags = append(w.Tags, wireTag{k, v})
	}
	return w
}

func (e *EC2) wireRun(form url.Values) (any, *failure) {
	l := launch{Instance: Instance{
		Image: form.Get("ImageId"), Type: form.Get("InstanceType"), Token: form.Get("ClientToken"), UserData: form.Get("UserData"),
		Subnet: form.Get("SubnetId"), Spot: form.Get("InstanceMarketOptions.MarketType") == "spot",
		ShutdownTerminates: form.Get("InstanceInitiatedShutdownBehavior") == "terminate", Tags: map[string]string{},
	}}
	if l.Subnet == "" {
		l.Subnet = form.Get("NetworkInterface.1.SubnetId")
	}
	if len(l.UserData) > 16<<10*4/3+4 {
		return nil, refuse(400, "InvalidUserData.Malformed", "User data is limited to 16384 bytes")
	}
	if len(l.Token) > 64 {
		return nil, refuse(400, "InvalidParameterValue", "The client token is longer than 64 characters")
	}
	if l.Image == "" || l.Type == "" {
		return nil, refuse(400, "MissingParameter", "The request must contain the parameters ImageId and InstanceType")
	}
	l.count, _ = strconv.Atoi(form.Get("MaxCount")) // none is one
	l.dry = form.Get("DryRun") == "true"
	for i := 1; form.Get(fmt.Sprintf("TagSpecification.%d.ResourceType", i)) != ""; i++ {
		spec := fmt.Sprintf("TagSpecification.%d", i)
		for j := 1; form.Get(fmt.Sprintf("%s.Tag.%d.Key", spec, j)) != ""; j++ {
			if form.Get(spec+".ResourceType") == "instance" {
				l.Tags[form.Get(fmt.Sprintf("%s.Tag.%d.Key", spec, j))] = form.Get(fmt.Sprintf("%s.Tag.%d.Value", spec, j))
			}
		}
	}
	params := url.Values{}
	for k, v := range form {
		if !slices.Contains([]string{"Action", "Version", "DryRun", "ClientToken"}, k) {
			params[k] = v
		}
	}
	l.params = params.Encode()
	list, no := e.run(l)
	if no != nil {
		return nil, no
	}
	out := wireRunReply{RequestID: "fake", wireReservation: wireReservation{ID: "r-1", Owner: "123456789012"}}
	for _, i := range list {
		out.Instances = append(out.Instances, wireOf(e.answer(i)))
	}
	return out, nil
}

func (e *EC2) wireDescribe(form url.Values) (any, *failure) {
	var ids []string
	for i := 1; form.Get(fmt.Sprintf("InstanceId.%d", i)) != ""; i++ {
		ids = append(ids, form.Get(fmt.Sprintf("InstanceId.%d", i)))
	}
	match, no := filters(form)
	if no != nil {
		return nil, no
	}
	page := 0
	if t := form.Get("NextToken"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return nil, refuse(400, "InvalidParameterValue", "The token %s is not valid", t)
		}
		page = n
	}
	list, more, no := e.describe(page, ids, match)
	if no != nil {
		return nil, no
	}
	out := wireDescribeReply{RequestID: "fake"}
	for i, s := range list {
		out.Reservations = append(out.Reservations, wireReservation{fmt.Sprintf("r-%d", i), "123456789012", []wireInstance{wireOf(s)}})
	}
	if more {
		out.NextToken = strconv.Itoa(page + 1)
	}
	return out, nil
}

// filters returns what Filter.N.Name and Filter.N.Value.M let through.
func filters(form url.Values) (func(shown) bool, *failure) {
	var tests []func(shown) bool
	for i := 1; form.Get(fmt.Sprintf("Filter.%d.Name", i)) != ""; i++ {
		name := form.Get(fmt.Sprintf("Filter.%d.Name", i))
		var values []string
		for j := 1; form.Has(fmt.Sprintf("Filter.%d.Value.%d", i, j)); j++ {
			values = append(values, form.Get(fmt.Sprintf("Filter.%d.Value.%d", i, j)))
		}
		fits := func(got string) bool {
			return slices.ContainsFunc(values, func(pattern string) bool {
				ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\\/"), got)
				return err == nil && ok
			})
		}
		tag, isTag := strings.CutPrefix(name, "tag:")
		switch {
		case isTag:
			tests = append(tests, func(s shown) bool { v, ok := s.Tags[tag]; return ok && fits(v) })
		case name == "tag-key":
			tests = append(tests, func(s shown) bool {
				for k := range s.Tags {
					if fits(k) {
						return true
					}
				}
				return false
			})
		case name == "instance-state-name":
			tests = append(tests, func(s shown) bool { return fits(string(s.state)) })
		case name == "instance-type":
			tests = append(tests, func(s shown) bool { return fits(s.Type) })
		case name == "client-token":
			tests = append(tests, func(s shown) bool { return fits(s.Token) })
		default:
			return nil, refuse(400, "InvalidParameterValue", "The filter '%s' is invalid", name)
		}
	}
	return func(s shown) bool {
		return !slices.ContainsFunc(tests, func(test func(shown) bool) bool { return !test(s) })
	}, nil
}

func (e *EC2) wireTerminate(form url.Values) (any, *failure) {
	out := wireTerminateReply{RequestID: "fake"}
	var ids []string
	for i := 1; form.Get(fmt.Sprintf("InstanceId.%d", i)) != ""; i++ {
		id := form.Get(fmt.Sprintf("InstanceId.%d", i))
		ids = append(ids, id)
		out.Changes = append(out.Changes, wireChange{id, wireState{stateCodes[ec2.ShuttingDown], string(ec2.ShuttingDown)}})
	}
	if no := e.terminate(ids, form.Get("DryRun") == "true"); no != nil {
		return nil, no
	}
	return out, nil
}

func (e *EC2) wireAttribute(form url.Values) (any, *failure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.byID[form.Get("InstanceId")]
	if i == nil {
		return nil, refuse(400, "InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", form.Get("InstanceId"))
	}
	out := wireAttributeReply{RequestID: "fake", ID: i.ID}
	switch name := form.Get("Attribute"); name {
	case "userData":
		out.UserData = &wireValue{i.UserData}
	case "instanceInitiatedShutdownBehavior":
		out.Shutdown = &wireValue{map[bool]string{true: "terminate", false: "stop"}[i.ShutdownTerminates]}
	default:
		return nil, refuse(400, "InvalidParameterValue", "The attribute %s is not known", name)
	}
	return out, nil
}
