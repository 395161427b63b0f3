package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDeploy takes two deployments up and down as their operator does, side by
// side in one account: what the scripts ask of AWS is asked of moto, and the
// nodes they install are real.
func TestDeploy(t *testing.T) {
	t.Parallel()
	d := newDeployer(t, "us-east-1")
	one := d.place("one")

	t.Run("a_dry_run_makes_nothing", func(t *testing.T) {
		r := d.run(t, one, "setup.sh", "--dry-run", "--allow-cidr", "203.0.113.7/32")
		if r.code != 0 || !strings.Contains(r.out, "Cost ") {
			t.Fatalf("exit code %d: %s", r.code, r)
		}
		if w := writes(r.calls); len(w) > 0 {
			t.Errorf("it asks for %v", w)
		}
		if _, err := os.Stat(one.state); err == nil {
			t.Error("there is a state folder")
		}
	})
	if t.Failed() {
		return
	}

	up := d.run(t, one, "setup.sh", "--yes", "--allow-cidr", "203.0.113.7/32", "--node-workers", "1")
	if up.code != 0 || !strings.Contains(up.out, "value right") || !strings.Contains(up.out, "Ready in") {
		t.Fatalf("setup: exit code %d: %s", up.code, up)
	}
	cluster := one.setting(t, "cluster")
	t.Logf("setup: %d calls, %v", len(up.calls), up.took)

	t.Run("what_it_asked_for", func(t *testing.T) {
		launches := callsOf(up.calls, "RunInstances")
		if len(launches) != 2 {
			t.Fatalf("%d launches, want 2", len(launches))
		}
		for i, c := range launches {
			node := string(rune('a' + i))
			for key, want := range map[string]string{
				"MetadataOptions.HttpTokens": "required", "MetadataOptions.HttpPutResponseHopLimit": "1", "ClientToken": "wm-" + cluster + "-node-" + node + "-1",
				"InstanceInitiatedShutdownBehavior": "stop", "BlockDeviceMapping.1.Ebs.Encrypted": "true", "MinCount": "1", "MaxCount": "1", "UserData": "",
			} {
				if got := c.form.Get(key); got != want {
					t.Errorf("node %s: %s = %q, want %q", node, key, got, want)
				}
			}
			for _, kind := range []string{"instance", "volume"} {
				if tags := c.tags(kind); tags["workmanager:cluster"] != cluster || tags["workmanager:role"] != "node" || tags["workmanager:node"] != node {
					t.Errorf("node %s: tags of its %s: %v", node, kind, tags)
				}
			}
		}
		for _, c := range up.calls {
			for key, values := range c.form {
				if strings.HasSuffix(key, "CidrIp") && !strings.HasSuffix(values[0], "/32") && (values[0] != "0.0.0.0/0" || c.action != "AuthorizeSecurityGroupEgress") {
					t.Errorf("%s: %s = %s", c.action, key, values[0])
				}
				if strings.Contains(values[0], "PassRole") {
					t.Errorf("%s asks for PassRole", c.action)
				}
			}
		}
		first := slices.IndexFunc(up.calls, func(c awsCall) bool { return c.action == "RunInstances" && c.form.Get("DryRun") != "true" })
		seen := slices.IndexFunc(up.calls, func(c awsCall) bool { return c.action == "DescribeInstances" })
		if seen < 0 || seen > first {
			t.Error("a node is launched before it was looked for")
		}
	})
	t.Run("it_asks_for_no_other_right", func(t *testing.T) { allowed(t, up.calls) })
	t.Run("port_22_is_closed_again", func(t *testing.T) {
		rules := d.rules(t, cluster)
		for _, r := range rules {
			if strings.Contains(r, "22") && strings.Contains(r, " 22 ") {
				t.Errorf("rule %s", r)
			}
		}
		if want := d.wanted(t, "203.0.113.7/32"); !slices.Equal(rules, want) {
			t.Errorf("rules:\n%s\nwant:\n%s", strings.Join(rules, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("nothing_secret_is_told", func(t *testing.T) {
		secrets := map[string]string{}
		for _, name := range []string{"client.token", "operator.token", "worker.token", "a/node.key", "a/gossip.key", "b/credential.key", "ca.key"} {
			b, err := os.ReadFile(filepath.Join(one.state, "keys", name))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.TrimSpace(string(b))
			if strings.HasPrefix(text, "-----BEGIN") {
				text = strings.Split(text, "\n")[1] // of the key itself
			}
			secrets[name] = text
		}
		log, err := os.ReadFile(filepath.Join(one.state, "log"))
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range secrets {
			if strings.Contains(up.out, secret) || strings.Contains(string(log), secret) {
				t.Errorf("%s is told", name)
			}
			for _, c := range up.calls {
				if strings.Contains(c.body, secret) {
					t.Errorf("%s is in a call, %s", name, c.action)
				}
			}
		}
		err = filepath.WalkDir(one.state, func(name string, e os.DirEntry, err error) error {
			if err != nil || strings.Contains(name, "/bin") {
				return err
			}
			if fi, err := e.Info(); err == nil && fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s may be opened by others: %v", name, fi.Mode())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for _, host := range d.hosts(t) {
			if left, _ := filepath.Glob(filepath.Join(d.folder, host, "home", "*")); len(left) > 0 {
				t.Errorf("the delivery is still there: %v", left)
			}
		}
	})

	t.Run("again_nothing_is_made_twice", func(t *testing.T) {
		before := d.pids(t)
		r := d.run(t, one, "setup.sh", "--yes")
		if r.code != 0 || strings.Count(r.out, "no change, not restarted") != 2 {
			t.Fatalf("exit code %d: %s", r.code, r)
		}
		for _, c := range writes(r.calls) {
			if !strings.Contains(c, "SecurityGroupIngress") && c != "PutRolePolicy" { // port 22, and the same policy again
				t.Errorf("it asks for %s", c)
			}
		}
		if after := d.pids(t); !slices.Equal(before, after) {
			t.Errorf("processes %v, before %v", after, before)
		}
	})

	two := d.place("two")
	if r := d.run(t, two, "setup.sh", "--yes", "--ssh-cidr", "203.0.113.7/32", "--node-workers", "1"); r.code != 0 {
		t.Fatalf("a second deployment: exit code %d: %s", r.code, r)
	}
	other := two.setting(t, "cluster")
	t.Run("another_deployment_shares_nothing", func(t *testing.T) {
		if cluster == other {
			t.Fatal("both are", cluster)
		}
		mine, its := d.inventory(t, cluster), d.inventory(t, other)
		if len(mine) != len(its) || len(mine) < 2+2+2+1+1+1 {
			t.Errorf("inventories %v and %v", mine, its)
		}
		for _, thing := range mine {
			if slices.Contains(its, thing) {
				t.Errorf("both have %s", thing)
			}
		}
		if r := d.rules(t, other); slices.ContainsFunc(r, func(s string) bool { return strings.Contains(s, "203.0.113.7") }) {
			t.Errorf("its API is open to somebody: %v", r)
		}
	})

	down := d.run(t, one, "teardown.sh", "--yes")
	if down.code != 0 || !strings.Contains(down.out, "0 left of "+cluster) {
		t.Fatalf("teardown: exit code %d: %s", down.code, down)
	}
	t.Logf("teardown: %d calls, %v", len(down.calls), down.took)
	for _, want := range []string{"node a has stopped launching", "node b has stopped launching"} {
		if !strings.Contains(down.out, want) {
			t.Errorf("it does not say %q: %s", want, down)
		}
	}
	t.Run("taking_down_asks_for_no_other_right", func(t *testing.T) { allowed(t, down.calls) })
	t.Run("taken_down_in_order", func(t *testing.T) {
		last := -1
		for _, step := range []string{"TerminateInstances", "DescribeInstances", "RevokeSecurityGroupIngress", "DeleteSecurityGroup", "DeleteKeyPair", "RemoveRoleFromInstanceProfile", "DeleteInstanceProfile", "DeleteRolePolicy", "DeleteRole"} {
			i := -1
			for n, c := range down.calls {
				if c.action == step && n > last {
					i = n
					break
				}
			}
			if i < 0 {
				t.Fatalf("no %s after the step before it: %v", step, actions(down.calls))
			}
			last = i
		}
		deleted := slices.IndexFunc(down.calls, func(c awsCall) bool { return c.action == "DeleteSecurityGroup" })
		for _, c := range down.calls[deleted:] {
			if strings.HasPrefix(c.action, "Revoke") || c.action == "TerminateInstances" {
				t.Errorf("%s after a group was deleted", c.action)
			}
		}
		if left := d.inventory(t, cluster); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("the_other_one_goes_on", func(t *testing.T) {
		if got := len(d.inventory(t, other)); got < 9 {
			t.Errorf("%d things of it are left", got)
		}
		r := d.run(t, two, "setup.sh", "--yes")
		if r.code != 0 || strings.Count(r.out, "no change, not restarted") != 2 {
			t.Errorf("exit code %d: %s", r.code, r)
		}
	})
	t.Run("taken_down_again", func(t *testing.T) {
		r := d.run(t, one, "teardown.sh", "--yes")
		if r.code != 0 || !strings.Contains(r.out, "0 left") || len(writes(r.calls)) > 0 {
			t.Errorf("exit code %d, calls %v: %s", r.code, actions(r.calls), r)
		}
		r = d.run(t, one, "teardown.sh", "--yes", "--cluster", cluster, "--region", "us-east-1")
		if r.code != 0 || !strings.Contains(r.out, "0 left of "+cluster) || len(writes(r.calls)) > 0 {
			t.Errorf("by its ID: exit code %d, calls %v: %s", r.code, actions(r.calls), r)
		}
	})
	t.Run("taken_down_without_its_state", func(t *testing.T) {
		if err := os.RemoveAll(two.state); err != nil {
			t.Fatal(err)
		}
		r := d.run(t, two, "teardown.sh", "--yes", "--cluster", other, "--region", "us-east-1")
		if r.code != 0 || !strings.Contains(r.out, "0 left of "+other) || !strings.Contains(r.out, "end first") {
			t.Errorf("exit code %d: %s", r.code, r)
		}
		if left := d.inventory(t, other); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestDeployInterrupted kills setup.sh after a call that changes something, before
// it hears the answer, and runs it again, until it gets to its end; then
// teardown.sh the same way. In between there is one deployment, and at the end
// none. At length each run is killed at its first such call, so that all are gone
// through; otherwise at its fifth.
func TestDeployInterrupted(t *testing.T) {
	t.Parallel()
	d := newDeployer(t, "us-east-1")
	p := d.place("cut")
	every := 5
	if os.Getenv("WORKMANAGER_E2E_DEPLOY") != "" {
		every = 1
	}
	through := func(script string, args ...string) (cuts []string, r scriptRun) {
		for range 60 {
			d.proxy.cutAt(every)
			r = d.run(t, p, script, args...)
			if d.proxy.wasCut() == "" {
				return cuts, r
			}
			if r.code != -1 {
				t.Fatalf("%s was not killed after %s: exit code %d: %s", script, d.proxy.wasCut(), r.code, r)
			}
			cuts = append(cuts, d.proxy.wasCut())
		}
		t.Fatalf("%s does not get to its end: %v", script, cuts)
		return nil, r
	}
	// The rules of port 22 and the policy are made anew by each run; they come
	// first only once.
	d.proxy.passOver = func(seen map[string]int, c awsCall) bool {
		return c.action == "PutRolePolicy" && seen[c.action] > 0 || strings.Contains(c.body, "203.0.113.7") && seen[c.action] > 2 ||
			strings.HasPrefix(c.action, "Revoke") && seen[c.action] > 2
	}
	cuts, r := through("setup.sh", "--yes", "--ssh-cidr", "203.0.113.7/32", "--node-workers", "1")
	if r.code != 0 || !strings.Contains(r.out, "value right") {
		t.Fatalf("the last run: exit code %d: %s", r.code, r)
	}
	t.Logf("setup was killed after %v", cuts)
	if len(cuts) < 2 {
		t.Errorf("it was killed %d times", len(cuts))
	}
	for _, want := range []string{"ImportKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupEgress", "CreateRole", "PutRolePolicy", "CreateInstanceProfile", "AddRoleToInstanceProfile", "RunInstances"} {
		if every == 1 && !slices.Contains(cuts, want) {
			t.Errorf("it was never killed after %s", want)
		}
	}
	cluster := p.setting(t, "cluster")
	kinds := map[string]int{}
	for _, thing := range d.everything(t) {
		kind, _, _ := strings.Cut(thing, " ")
		kinds[kind]++
	}
	if kinds["instance"] != 2+len(d.living(t, cluster, "worker")) || kinds["security-group"] != 2 || kinds["key-pair"] != 1 || kinds["role"] != 1 || kinds["instance-profile"] != 1 {
		t.Errorf("there is %v, want one deployment: %v", kinds, d.everything(t))
	}
	if want := d.wanted(t, ""); !slices.Equal(d.rules(t, cluster), want) {
		t.Errorf("rules %v, want %v", d.rules(t, cluster), want)
	}

	d.proxy.passOver = nil
	cuts, r = through("teardown.sh", "--yes")
	if r.code != 0 || !strings.Contains(r.out, "0 left") {
		t.Fatalf("the last run: exit code %d: %s", r.code, r)
	}
	t.Logf("teardown was killed after %v", cuts)
	if len(cuts) < 2 {
		t.Errorf("it was killed %d times", len(cuts))
	}
	for _, want := range []string{"TerminateInstances", "RevokeSecurityGroupIngress", "DeleteSecurityGroup", "DeleteKeyPair", "DeleteInstanceProfile", "DeleteRole"} {
		if every == 1 && !slices.Contains(cuts, want) {
			t.Errorf("it was never killed after %s", want)
		}
	}
	if left := d.everything(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDeployPlans are what the operator sees before anything is made, in two
// regions.
func TestDeployPlans(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ region, flags string }{
		{"us-east-1", "--allow-cidr 203.0.113.7/32 --spot"},
		{"eu-central-1", "--ssh-cidr 203.0.113.7/32 --node-type t3.small --types c6a.large,c7i.large --max-workers 20 --volume-gib 50 --keep-ssh"},
	} {
		t.Run(row.region, func(t *testing.T) {
			d := newDeployer(t, row.region)
			p := d.place(row.region)
			r := d.runBare(t, p, "setup.sh", append([]string{"--dry-run", "--region", row.region}, strings.Fields(row.flags)...)...)
			if r.code != 0 || len(writes(r.calls)) > 0 {
				t.Fatalf("exit code %d, calls %v: %s", r.code, actions(r.calls), r)
			}
			for _, c := range r.calls {
				if !strings.Contains(c.authorization, "/"+row.region+"/") {
					t.Errorf("%s goes to another region: %s", c.action, c.authorization)
				}
			}
			goldenFile(t, "testdata/deploy/plan-"+row.region+".txt", strings.ReplaceAll(r.out, p.state, "STATE"))
		})
	}
}

// TestDeployRefusals: what cannot work is told before anything is made, in words,
// with AWS's code and a way on.
func TestDeployRefusals(t *testing.T) {
	t.Parallel()
	d := newDeployer(t, "us-east-1")
	const cidr = "--ssh-cidr=203.0.113.7/32"
	for _, row := range []struct {
		name string
		args []string
		fail map[string]string // action: code
		env  []string
		code int
		want []string
	}{
		{"no_address", nil, nil, nil, 2, []string{"--ssh-cidr is missing", "not looked up"}},
		{"its_own_address", []string{"--dry-run"}, nil, []string{"WORKMANAGER_OWN=10.9.8.7"}, 0, []string{"port 22 to 10.9.8.7/32 while", "behind a NAT", "to nobody"}},
		{"a_range_for_ssh", []string{"--ssh-cidr", "10.0.0.0/8"}, nil, nil, 2, []string{"one address", "no range"}},
		{"no_range", []string{"--allow-cidr", "300.1.1.1/32"}, nil, nil, 2, []string{"--allow-cidr 300.1.1.1/32"}},
		{"everybody_is_no_ssh", []string{"--allow-cidr", "0.0.0.0/0"}, nil, nil, 2, []string{"--ssh-cidr is missing"}},
		{"two_architectures", []string{cidr, "--types", "c7a.large,c7g.large"}, nil, nil, 2, []string{"one image", "c7g.large", "arm64"}},
		{"no_type", []string{cidr, "--types", "large"}, nil, nil, 2, []string{"large is no instance type"}},
		{"no_flag", []string{"--allow"}, nil, nil, 2, []string{"--allow is no flag"}},
		{"no_answer", []string{cidr}, nil, nil, 2, []string{"--yes"}},
		{"a_type_that_no_zone_has", []string{cidr, "--yes", "--types", "c99.large"}, nil, nil, 1, []string{"no two zones", "c99.large"}},
		{"no_credentials", []string{cidr, "--yes"}, map[string]string{"GetCallerIdentity": "InvalidClientTokenId"}, nil, 1, []string{"InvalidClientTokenId", "sign in"}},
		{"not_allowed", []string{cidr, "--yes"}, map[string]string{"RunInstances": "UnauthorizedOperation"}, nil, 1, []string{"ec2:RunInstances", "UnauthorizedOperation", "scripts/teardown.sh --state"}},
		{"no_iam", []string{cidr, "--yes"}, map[string]string{"CreateRole": "AccessDenied"}, nil, 1, []string{"policy.json", "--instance-profile", "to go on", "security-group sg-"}},
		{"quota", []string{cidr, "--yes"}, map[string]string{"RunInstances/real": "VcpuLimitExceeded"}, nil, 1, []string{"quota", "VcpuLimitExceeded", "to go on"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := d.place(row.name)
			d.proxy.refuse(row.fail)
			defer d.proxy.refuse(nil)
			plain := d.env
			d.env = append(slices.Clone(plain), row.env...)
			r := d.run(t, p, "setup.sh", row.args...)
			d.env = plain
			if r.code != row.code {
				t.Errorf("exit code %d, want %d: %s", r.code, row.code, r)
			}
			for _, want := range row.want {
				if !strings.Contains(r.out, want) {
					t.Errorf("it does not say %q: %s", want, r)
				}
			}
			d.proxy.refuse(nil)
			if _, err := os.Stat(p.state); err != nil {
				if w := writes(r.calls); len(w) > 0 {
					t.Errorf("it asks for %v", w)
				}
				return
			}
			if r := d.run(t, p, "teardown.sh", "--yes"); r.code != 0 || !strings.Contains(r.out, "0 left") {
				t.Errorf("teardown: exit code %d: %s", r.code, r)
			}
		})
	}
	if left := d.everything(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDeployRules: what the scripts open and allow, as it stands in their files.
func TestDeployRules(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("../../scripts/deploy/rules")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(rules)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		n++
		if len(f) < 5 || f[0] != "node" && f[0] != "worker" || f[1] != "in" && f[1] != "out" {
			t.Errorf("rule %q cannot be read", line)
			continue
		}
		if f[1] == "in" && (f[0] == "worker" || strings.ContainsAny(f[4], "./:")) {
			t.Errorf("rule %q lets somebody in by address", line)
		}
		if f[1] == "out" && strings.Contains(f[4], "/0") && (f[0] != "node" || f[3] != "443") {
			t.Errorf("rule %q lets everything out", line)
		}
		if f[3] == "22" && f[4] != "operator" {
			t.Errorf("rule %q opens port 22", line)
		}
	}
	if n < 8 {
		t.Errorf("%d rules", n)
	}

	text, err := os.ReadFile("../../scripts/deploy/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	filled := regexp.MustCompile(`@(TYPES|PLACES)@`).ReplaceAllString(string(text), `"x"`)
	var policy struct {
		Statement []struct {
			Sid, Effect      string
			Action, Resource any
			Condition        map[string]map[string]any
		}
	}
	if err := json.Unmarshal([]byte(filled), &policy); err != nil {
		t.Fatal(err)
	}
	for _, s := range policy.Statement {
		list := func(v any) (out []string) {
			if one, ok := v.(string); ok {
				return []string{one}
			}
			for _, x := range v.([]any) {
				out = append(out, x.(string))
			}
			return out
		}
		for _, a := range list(s.Action) {
			switch {
			case strings.HasPrefix(a, "ec2:Describe"):
				if s.Condition["StringEquals"]["aws:RequestedRegion"] == nil {
					t.Errorf("%s: %s in all regions", s.Sid, a)
				}
				continue
			case a == "ec2:TerminateInstances":
				if c := s.Condition["StringEquals"]; c["aws:ResourceTag/workmanager:cluster"] != "@CLUSTER@" || c["aws:ResourceTag/workmanager:role"] != "worker" {
					t.Errorf("%s ends more than workers of the cluster: %v", s.Sid, c)
				}
			case a == "ec2:CreateTags":
				if s.Condition["StringEquals"]["ec2:CreateAction"] != "RunInstances" {
					t.Errorf("%s tags what is not just launched", s.Sid)
				}
			case a != "ec2:RunInstances":
				t.Errorf("%s allows %s", s.Sid, a)
			}
			for _, r := range list(s.Resource) {
				if r == "*" {
					t.Errorf("%s: %s of everything", s.Sid, a)
				}
				if a == "ec2:RunInstances" && strings.HasSuffix(r, ":instance/*") {
					c := s.Condition["StringEquals"]
					if c["aws:RequestTag/workmanager:cluster"] != "@CLUSTER@" || c["aws:RequestTag/workmanager:role"] != "worker" || c["ec2:MetadataHttpTokens"] != "required" || c["ec2:InstanceType"] == nil {
						t.Errorf("%s launches more than workers: %v", s.Sid, c)
					}
				}
			}
		}
		if s.Effect != "Allow" {
			t.Errorf("%s: %s", s.Sid, s.Effect)
		}
	}
	if strings.Contains(string(text), "PassRole") {
		t.Error("nodes may hand on a role")
	}
}
