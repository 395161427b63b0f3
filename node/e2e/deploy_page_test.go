package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const deployPage = "../../node/DEPLOYMENT.md"

// TestDeployPage runs what the page on deployment says, in its order, against
// moto: plan, make, use, change, renew, a second deployment, teardown. In between
// a node is lost for good, and launched again as the page says.
func TestDeployPage(t *testing.T) {
	t.Parallel()
	need(t, false, "bash", "sed")
	d := newDeployer(t, "us-east-1")
	dir := t.TempDir()
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string]string{"setup.sh": "--yes --node-type t3.small --binaries " + d.programs(), "teardown.sh": "--yes"} {
		text := fmt.Sprintf("#!/bin/sh\nexec %s/%s \"$@\" %s\n", scripts, name, flags)
		if err := os.WriteFile(filepath.Join(dir, "scripts", name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{filepath.Join(scripts, "deploy"): "scripts/deploy", binary: "workmanager", filepath.Join(scripts, "../README.md"): "README.md"} {
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	var blocks []string
	for _, m := range block.FindAllStringSubmatch(pageText(t, deployPage), -1) {
		if strings.Contains(m[2], "TestDeployPage") {
			blocks = append(blocks, m[3])
		}
	}
	if len(blocks) != 4 {
		t.Fatalf("the page has %d blocks for this test, want 4", len(blocks))
	}
	run := func(text string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-eo", "pipefail", "-c", "git() { echo \"left out: git $*\"; }\nset -x\n"+text)
		cmd.Dir = dir
		for _, v := range environment() {
			if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "PATH=") && !strings.HasPrefix(v, "HOME=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		cmd.Env = append(append(cmd.Env, d.env...), "HOME="+dir, "PATH="+d.path+":"+dir+":"+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := startHere(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, tail(out.String(), 8000))
		}
		return out.String()
	}
	says := func(out string, wants ...string) {
		t.Helper()
		rest := out
		for _, want := range wants { // in this order
			_, after, found := strings.Cut(rest, want)
			if !found {
				t.Fatalf("it does not say %q where it should: %s", want, tail(out, 6000))
			}
			rest = after
		}
	}
	p := place{filepath.Join(dir, ".workmanager", "prod")}

	says(run(blocks[0]), "Cost  ", "Cost  ", "value right", "Ready in", `"session": "sync"`)
	cluster := p.setting(t, "cluster")
	if b, err := os.ReadFile(filepath.Join(p.state, "settings")); err != nil || !strings.Contains(string(b), "\nimage_amd64=") {
		t.Errorf("the settings have no image_…, which the page names: %v", err)
	}

	says(run(strings.ReplaceAll(blocks[1], "file://", "file://"+dir+"/")), "workmanager-deploy") // the AWS CLI of the tests is in another folder
	if b, err := os.ReadFile(filepath.Join(dir, "operator.json")); err != nil || strings.Contains(string(b), "@") || !json.Valid(b) {
		t.Errorf("operator.json: %v: %s", err, b)
	}

	before := d.pids(t)
	said := run(blocks[2])
	says(said, "at most 20", "node a: changed", "node a is in step", "node b: changed", "node b is in step", "no change, not restarted", "renewed: ", "node a: unchanged", "0 left of ")
	after := d.pids(t)
	if len(before) != 2 || len(after) < 2 {
		t.Errorf("processes %v, then %v, want two each", before, after)
	}
	for _, pid := range before {
		if slices.Contains(after, pid) {
			t.Errorf("process %d was not restarted for the new settings", pid)
		}
	}
	token, err := os.ReadFile(filepath.Join(dir, "alice.token"))
	if err != nil {
		t.Fatal(err)
	}
	asAlice := "set -a; . ~/.workmanager/prod/client.env; set +a; export WORKMANAGER_TOKEN=" + strings.TrimSpace(string(token)) + "\n"
	id := strings.TrimSpace(lastLine(run(asAlice + "printf kept | workmanager enqueue - -n 1")))

	// Node b is lost, disk and all.
	host, instance := d.nodeOf(t, cluster, "b")
	pid := d.running(t)[host]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(d.folder, host)); err != nil {
		t.Fatal(err)
	}
	says(run("aws ec2 terminate-instances --instance-ids "+instance+"\nscripts/setup.sh"), "node b i-", "launched", "certificates for the new addresses", "node b is in step with its peer", "value right", "Ready in")
	if again, _ := d.nodeOf(t, cluster, "b"); again == host {
		t.Errorf("node b is at %s as before", again)
	}
	says(run(asAlice+"workmanager job get "+id+" --node $(sed -n 's/^WORKMANAGER_NODE=.*,//p' ~/.workmanager/prod/client.env)"), `"state": "completed"`)

	says(run(blocks[3]), "Deployment "+cluster, "security-group ", "0 left of "+cluster)
	if left := d.everything(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// nodeOf returns the host and the instance of a node that has not ended.
func (d *deployer) nodeOf(t *testing.T, cluster, node string) (host, instance string) {
	t.Helper()
	v := of("DescribeInstances", cluster)
	v.Set("Filter.2.Name", "tag:workmanager:node")
	v.Set("Filter.2.Value.1", node)
	for _, i := range d.ask(t, v).Instances {
		if i.State == "running" {
			return strings.Replace(i.Address, "172.31.", strings.TrimPrefix(d.proxy.network, ">"), 1), i.ID
		}
	}
	t.Fatalf("no node %s runs", node)
	return "", ""
}

var (
	scriptCalls = regexp.MustCompile(`(aws )?\b(ec2|iam) "?([a-z]+(?:-[a-z$]+)+)`)
	askedFor    = regexp.MustCompile(`"((?:ec2|iam):[A-Za-z]+)"`)
)

// TestDeployRights: what the page says that an operator must be allowed is what
// the scripts ask for, all of it and nothing else.
func TestDeployRights(t *testing.T) {
	t.Parallel()
	want := []string{"ec2:CreateTags", "iam:TagRole", "iam:TagInstanceProfile", "iam:PassRole"} // of calls that make something with tags, and of a launch with a profile
	for _, name := range []string{"setup.sh", "teardown.sh", "lib.sh"} {
		b, err := os.ReadFile("../../scripts/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, m := range scriptCalls.FindAllStringSubmatch(line, -1) {
				if m[1] != "" { // advice
					continue
				}
				for _, verb := range []string{"ingress", "egress"} {
					action := ""
					for word := range strings.SplitSeq(strings.Replace(m[3], "$verb", verb, 1), "-") {
						action += strings.ToUpper(word[:1]) + word[1:]
					}
					want = append(want, m[2]+":"+action)
				}
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	b, err := os.ReadFile("../../scripts/deploy/operator.json")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range askedFor.FindAllStringSubmatch(string(b), -1) {
		if m[1] != "ec2:CreateAction" && m[1] != "iam:PassedToService" { // of conditions
			got = append(got, m[1])
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("operator.json allows\n%v\nthe scripts ask for\n%v", got, want)
	}
	for _, wide := range []string{`"*:*"`, `"ec2:*"`, `"iam:*"`} {
		if strings.Contains(string(b), wide) {
			t.Errorf("operator.json allows %s", wide)
		}
	}
	if len(want) < 30 {
		t.Errorf("%d actions, which is too few to be read right: %v", len(want), want)
	}
}

// allowed holds the calls of a script to operator.json.
func allowed(t *testing.T, calls []awsCall) {
	t.Helper()
	b, err := os.ReadFile("../../scripts/deploy/operator.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		service := "ec2"
		if strings.Contains(c.authorization, "/iam/") {
			service = "iam"
		}
		if c.action != "GetCallerIdentity" && !strings.Contains(string(b), `"`+service+":"+c.action+`"`) { // the former needs no right
			t.Errorf("it asks for %s:%s, which operator.json does not allow", service, c.action)
		}
	}
}
