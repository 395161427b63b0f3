package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/ec2"
	"workmanager/node"
	"workmanager/node/keys"
)

// What a finding is. A warning needs nothing done today.
const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
	stateSkip = "skip" // it could not be looked at
)

// finding is one thing that was looked at.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"`
	What  string `json:"what"`
	Next  string `json:"next,omitempty"` // what to do
}

// diagnosis is what doctor prints.
type diagnosis struct {
	OK       bool      `json:"ok"` // nothing failed
	Findings []finding `json:"findings"`
}

// doctor collects findings.
type doctor struct {
	timeout time.Duration
	cluster string
	keys    string // a node's folder, ""
	ca      string // a file, ""
	found   []finding
}

func (d *doctor) add(check, state, next, format string, args ...any) {
	if state == stateOK {
		next = ""
	}
	d.found = append(d.found, finding{Check: check, State: state, What: fmt.Sprintf(format, args...), Next: next})
}

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check ports, clocks, disk, certificates, keys, the pair and rights at AWS, and say what to do",
		Description: "Run it on a node, with that node's settings, for what only its machine can see: key\n" +
			"files, data folder, the ports of the other node from there. It changes nothing and\n" +
			"exits with 1 if something needs doing.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keys", Usage: "`FOLDER` of a node's keys", Category: groupKeys},
			&cli.StringFlag{Name: "data-dir", Usage: "`FOLDER` of the node's database", Value: node.Default().DataDir},
			&cli.StringSliceFlag{Name: "join", Usage: "gossip `HOST:PORT` to look at, beside those that the nodes name", Category: groupPair},
			&cli.StringFlag{Name: "cluster", Usage: "`NAME` of the pair", Category: groupPair},
			&cli.DurationFlag{Name: "timeout", Usage: "wait `DURATION` for each answer", Value: 2 * time.Second},
			&cli.GenericFlag{Name: "fleet", Usage: "the node's `KIND` of fleet: none, process, ec2; with ec2 the rights at AWS are tried", Value: &choice{"none", []string{"none", "process", "ec2"}}, Category: groupAWS},
			&cli.StringFlag{Name: "ami", Usage: "`ID` of the image", Category: groupAWS},
			&cli.StringSliceFlag{Name: "subnets", Usage: "`ID` of a subnet, or ID=ZONE", Category: groupAWS},
			&cli.StringSliceFlag{Name: "types", Usage: "instance `TYPE`", Category: groupAWS},
			&cli.StringFlag{Name: "worker-sg", Usage: "`ID` of the security group of workers", Category: groupAWS},
			&cli.BoolFlag{Name: "spot", Usage: "Spot instances are used", DisableDefaultText: true, Category: groupAWS},
			nodeFlag(),
			reportFlag(),
		},
		Action: p.doctor,
	}
}

const groupAWS = "FLEET"

func (p *program) doctor(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Duration("timeout") <= 0 {
		return usagef("--timeout must be above 0: %s given", c.Duration("timeout"))
	}
	d := &doctor{timeout: c.Duration("timeout"), cluster: c.String("cluster"), keys: c.String("keys"), ca: c.String("ca")}
	if d.keys != "" && d.ca == "" {
		d.ca = filepath.Join(d.keys, keys.CAFile)
	}
	d.settings(os.Environ(), c.App.Commands)
	d.keyFiles()
	d.dataFolder(c.String("data-dir"), c.IsSet("data-dir"))
	d.nodes(c.Context, c.StringSlice("node"), c.Generic("token").(*secret).text, c.StringSlice("join"))
	d.aws(c)
	if err := c.Context.Err(); err != nil {
		return err
	}
	return p.printDiagnosis(format(c), d.found)
}

func (p *program) printDiagnosis(f string, found []finding) error {
	out := diagnosis{OK: true, Findings: found}
	failed := 0
	for _, x := range found {
		if x.State == stateFail {
			out.OK = false
			failed++
		}
	}
	switch f {
	case formatJSON:
		if err := p.printJSON(f, out); err != nil {
			return err
		}
	case formatJSONL:
		for _, x := range found {
			if err := p.printJSON(f, x); err != nil {
				return err
			}
		}
	default:
		for _, x := range found {
			state := x.State
			if state == stateFail {
				state = "FAIL"
			}
			fmt.Fprintf(p.stdout, "%-4s  %s: %s\n", state, x.Check, x.What)
			if x.Next != "" {
				fmt.Fprintf(p.stdout, "      Next: %s\n", x.Next)
			}
		}
	}
	if failed > 0 {
		return &failure{exit: exitFailed, code: "doctor", err: fmt.Errorf("%s to be done", plural(int64(failed), "thing"))}
	}
	return nil
}

// settings looks for names in the environment that no command knows.
func (d *doctor) settings(env []string, commands []*cli.Command) {
	unknown := unknownTwins(env, commands)
	if len(unknown) == 0 {
		d.add("environment", stateOK, "", "every WORKMANAGER_ name in it is known")
		return
	}
	d.add("environment", stateWarn, "unset them, or mend the name: 'workmanager help environment' lists those there are", "%s", unknownSaid(unknown))
}

// keyFiles looks at a node's folder: is all there, who may read it, until when is
// it good.
func (d *doctor) keyFiles() {
	if d.keys == "" {
		d.add("keys", stateSkip, "", "no --keys: a node on loopback needs none")
		return
	}
	if _, err := os.Stat(filepath.Join(d.keys, keys.CAKeyFile)); err == nil {
		d.add("keys", stateFail, "give one node's folder in it; and keep ca.key off the nodes: who has it can pose as either",
			"%s is the folder of the whole pair, with the key of its authority", d.keys)
		return
	}
	fine := true
	for name, secret := range map[string]bool{
		keys.CAFile: false, keys.CertFile: false, keys.TokensFile: false,
		keys.KeyFile: true, keys.GossipFile: true, keys.CredentialFile: true, keys.ReceiptFile: true,
	} {
		path := filepath.Join(d.keys, name)
		fi, err := os.Stat(path)
		switch {
		case err != nil:
			fine = false
			d.add("keys", stateFail, "copy the node's folder that 'workmanager init' made anew", "%v", err)
		case secret && fi.Mode().Perm()&0o077 != 0:
			fine = false
			d.add("keys", stateFail, "chmod 600 "+path, "others than its owner may open %s: its mode is %04o", path, fi.Mode().Perm())
		}
	}
	if fi, err := os.Stat(d.keys); err == nil && fi.Mode().Perm()&0o022 != 0 {
		fine = false
		d.add("keys", stateFail, "chmod 700 "+d.keys, "others than its owner may change what is in %s: its mode is %04o", d.keys, fi.Mode().Perm())
	}
	if fine {
		d.add("keys", stateOK, "", "all of %s is there, and only its owner may read the secrets", d.keys)
	}
	expiry, err := keys.Check(keys.Files{Dir: d.keys}, time.Now())
	if err != nil {
		d.add("certificate", stateFail, "where ca.key is: 'workmanager init --out DIR --renew', then copy the folder to the node; it takes it without a restart", "%v", err)
		return
	}
	d.ends("certificate", "the certificate in "+d.keys, expiry.Node, "where ca.key is: 'workmanager init --out DIR --renew', then copy node.crt and node.key to the node")
	d.ends("authority", "the authority in "+d.keys, expiry.CA, "make keys for both nodes with 'workmanager init', and start both with them")
}

// ends judges how long something is good.
func (d *doctor) ends(check, what string, at time.Time, next string) {
	left := time.Until(at)
	switch day := at.UTC().Format(time.DateOnly); {
	case left <= 0:
		d.add(check, stateFail, next, "%s ended on %s", what, day)
	case left < warnDays*24*time.Hour:
		d.add(check, stateWarn, next, "%s is good for %s more, until %s", what, plural(int64(left/(24*time.Hour)), "day"), day)
	default:
		d.add(check, stateOK, "", "%s is good until %s", what, day)
	}
}

// leastFree are the parts of a disk below which a node takes no new jobs, and
// below which that is near.
const (
	leastFree = 50
	nearFree  = 10
	mostKept  = 256 << 20
)

// dataFolder looks at the disk of the node on this machine.
func (d *doctor) dataFolder(dir string, asked bool) {
	fi, err := os.Stat(dir)
	if err != nil {
		if asked {
			d.add("data folder", stateFail, "give the --data-dir of the node; it makes the folder at its first start", "%v", err)
		} else {
			d.add("data folder", stateSkip, "", "there is no %s here: no node's --data-dir was given", dir)
		}
		return
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		d.add("data folder", stateFail, "chmod 700 "+dir, "others than its owner may look into %s: its mode is %04o, and values may be key material", dir, perm)
	}
	var bytes int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // what cannot be read is not counted
		if err == nil && !e.IsDir() {
			if fi, err := e.Info(); err == nil {
				bytes += fi.Size()
			}
		}
		return nil
	})
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		d.add("disk", stateFail, "see why the file system does not answer", "%s: %v", dir, err)
		return
	}
	free, all := int64(disk.Bavail)*int64(disk.Bsize), int64(disk.Blocks)*int64(disk.Bsize)
	what := fmt.Sprintf("%s has %s of %s free; the database takes %s", dir, humanize.IBytes(uint64(free)), humanize.IBytes(uint64(all)), humanize.IBytes(uint64(bytes)))
	next := "make room, or give the disk more; a shorter --retention makes the database smaller in time"
	switch {
	case free < min(all/leastFree, mostKept):
		d.add("disk", stateFail, next, "%s: new jobs are refused", what)
	case free < min(all/nearFree, 4*mostKept):
		d.add("disk", stateWarn, next, "%s", what)
	default:
		d.add("disk", stateOK, "", "%s", what)
	}
}

// aws tries the rights that a fleet of EC2 instances needs.
func (d *doctor) aws(c *cli.Context) {
	if kind := c.Generic("fleet").(*choice).value; kind != "ec2" {
		d.add("AWS", stateSkip, "", "--fleet is %s: no rights are needed", kind)
		return
	}
	image, subnets, types := c.String("ami"), c.StringSlice("subnets"), c.StringSlice("types")
	if image == "" || len(subnets) == 0 || len(types) == 0 || d.cluster == "" {
		d.add("AWS", stateWarn, "give --cluster, --ami, --subnets and --types as the node has them; what the node finds by itself its log tells", "the rights were not tried")
		return
	}
	id, zone, _ := strings.Cut(subnets[0], "=")
	ctx, cancel := context.WithTimeout(c.Context, 10*d.timeout)
	defer cancel()
	a, err := ec2.NewAWS(ctx, ec2.AWSConfig{Cluster: d.cluster, Image: image, SecurityGroup: c.String("worker-sg")})
	if err != nil {
		d.add("AWS", stateFail, "set AWS_REGION, and give the instance a role", "%v", err)
		return
	}
	r := ec2.Request{Slot: ec2.Slot{Offer: ec2.Offer{Type: types[0], Subnet: id, Zone: zone, Spot: c.Bool("spot")}}}
	for _, right := range a.Rights(ctx, r) {
		switch {
		case right.Err == nil:
			d.add("AWS", stateOK, "", "may %s: %s", right.Action, right.Note)
		case right.Denied:
			d.add("AWS", stateFail, "let the role of the nodes do "+right.Action+"; 'scripts/setup.sh' makes such a role", "may not %s: %v", right.Action, right.Err)
		default:
			d.add("AWS", stateFail, "mend the setting that it names, or wait if it is EC2 that does not answer", "%s does not work: %v", right.Action, right.Err)
		}
	}
}
