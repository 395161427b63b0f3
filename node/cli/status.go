package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"workmanager/web/api"
)

const watchInterval = 2 * time.Second

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "print how the queue and the node are",
		Flags: append([]cli.Flag{
			&cli.GenericFlag{Name: "watch", Usage: "print it again every `INTERVAL` until interrupted; alone every 2s", Value: &every{}},
			nodeFlag(),
			documentFlag(),
		}, checkFlags()...),
		Action: p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	if c.Generic("watch").(*every).on && c.Args().Present() {
		return usagef("--watch takes an interval such as 5s: %q given", c.Args().First())
	}
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Bool("check") {
		return p.statusCheck(c)
	}
	cl := p.client(c)
	defer cl.Close()
	watch, f := c.Generic("watch").(*every), format(c)
	if !watch.on {
		s, err := cl.Status(c.Context)
		if err != nil {
			return err
		}
		return p.printStatus(f, s)
	}
	if f == formatJSON {
		f = formatJSONL // a document a line, since there is one after the other
	}
	interval := watch.interval
	if interval <= 0 {
		interval = watchInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for met := false; ; met = true {
		s, err := cl.Status(c.Context)
		switch {
		case err == nil:
			if f == formatTable && isTerminal(p.stdout) {
				fmt.Fprint(p.stdout, "\x1b[H\x1b[2J")
			}
			if err := p.printStatus(f, s); err != nil {
				return err
			}
		case c.Context.Err() != nil || !met || !isAway(err):
			return err
		default:
			p.say("%s: no node answers: %v", time.Now().Format(time.TimeOnly), err)
		}
		select {
		case <-c.Context.Done():
			return context.Cause(c.Context)
		case <-tick.C:
		}
	}
}

func (p *program) printStatus(f string, s api.Status) error {
	if f != formatTable {
		return p.printJSON(f, s)
	}
	fmt.Fprintln(p.stdout, forecast(s, time.Now()))
	if s.Alarms > 0 {
		fmt.Fprintf(p.stdout, "ALARM: %d times a value was not what another, or recomputing, gave; see the node's log.\n", s.Alarms)
	}
	for _, b := range s.Audit.Quarantined[:min(len(s.Audit.Quarantined), 5)] {
		fmt.Fprintf(p.stdout, "QUARANTINED: worker %s, since %s: %s\n", b.Worker, b.At.Local().Format(time.DateTime), b.Reason)
	}
	if n := s.Audit.Disputed + s.Audit.Doubted; n > 0 {
		fmt.Fprintf(p.stdout, "%s to be recomputed.\n", plural(int64(n), "value"))
	}
	for _, line := range append(append(shareOf(s), peerTrouble(s)...), certTrouble(s)...) {
		fmt.Fprintln(p.stdout, line)
	}
	state := "healthy"
	if !s.Writable {
		state = "read only"
	}
	cache := "off"
	if s.Cache.Enabled {
		cache = fmt.Sprintf("%s/%s", number(float64(s.Cache.Entries)), number(float64(s.Cache.Max)))
	}
	peer := s.Peer
	here := s.Workers - peer.Workers
	nodes := [][]any{{s.Node, state, s.Queued - peer.Waiting, s.Leased - peer.Leased, here, s.Completed, s.Failed, humanize.IBytes(uint64(max(0, s.StoreBytes+s.WALBytes))),
		humanize.IBytes(uint64(max(0, s.DiskFreeBytes))), cache, roughly(s.Now.Sub(s.StartedAt)), s.Version}}
	if peer.Session != api.SessionNone {
		nodes = append(nodes, []any{cmp.Or(peer.Node, "?"), peerState(peer), peer.Waiting, peer.Leased, peer.Workers})
	}
	err := p.printTable(
		[]string{"NODE", "STATE", "QUEUED", "LEASED", "WORKERS", "COMPLETED", "FAILED", "STORE", "DISK FREE", "CACHE", "UP", "VERSION"}, nodes)
	if err != nil {
		return err
	}
	if peer.Session != api.SessionNone {
		if err := p.printPeer(s); err != nil {
			return err
		}
	}
	if len(s.WorkerList) == 0 && here > 0 { // which they are is told to operators
		return nil
	}
	rows := make([][]any, len(s.WorkerList))
	for i, w := range s.WorkerList {
		rows[i] = []any{w.Name, w.Instance, w.Cores, w.Lanes, w.Leases, number(w.Rate) + " it/s", w.Kernel, w.Version, roughly(s.Now.Sub(w.SeenAt)) + " ago"}
	}
	return p.printTable([]string{"WORKER", "INSTANCE", "CORES", "LANES", "LEASES", "RATE", "KERNEL", "VERSION", "SEEN"}, rows)
}

// shareOf says in a sentence what the client that asks has open of what it may.
func shareOf(s api.Status) []string {
	own, most := s.Clients.OwnOpenJobs, s.Clients.MaxOpenJobs
	switch {
	case own == nil:
		return nil
	case most == 0:
		return []string{fmt.Sprintf("You have %s.", plural(*own, "open job"))}
	case *own >= most:
		return []string{fmt.Sprintf("You have %s, the most that one client may have: more are refused until some have ended.", plural(*own, "open job"))}
	}
	return []string{fmt.Sprintf("You have %s of %s that one client may have.", plural(*own, "open job"), humanize.Comma(most))}
}

// printPeer prints how this node and its peer are in step.
func (p *program) printPeer(s api.Status) error {
	peer := s.Peer
	since := ""
	if peer.Since != nil {
		since = roughly(s.Now.Sub(*peer.Since))
	}
	copied := "complete"
	switch {
	case peer.Refilling:
		copied = "refilling"
	case !peer.Complete:
		copied = "not complete"
	}
	compared, clock := "not yet", skew(peer.SkewSeconds)
	if peer.Session == "down" {
		clock = "not known"
	}
	switch c := peer.Compare; {
	case c.Error != "":
		compared = "failed"
	case c.At != nil:
		compared = roughly(s.Now.Sub(*c.At)) + " ago"
	case c.Running:
		compared = "running"
	}
	return p.printTable(
		[]string{"PEER", "SESSION", "FOR", "UNDER-REPLICATED", "LAG", "BEHIND", "COPY HERE", "COMPARED", "CLOCK"},
		[][]any{{cmp.Or(peer.Node, "?"), peer.Session, since, peer.UnderReplicated, lag(peer), peer.Behind, copied, compared, clock}})
}

// maxLag is where a node stops counting its lag.
const maxLag = 20

// lag says how old the oldest row is that the peer may not have.
func lag(peer api.PeerStatus) string {
	if peer.LagSeconds >= maxLag {
		return "over 20s"
	}
	return roughly(inSeconds(peer.LagSeconds))
}

// peerState says in a word how the peer is, as seen from here.
func peerState(peer api.PeerStatus) string {
	switch {
	case peer.Refused != "":
		return "refused"
	case peer.Gone:
		return "gone"
	case peer.Session == "down":
		return "silent"
	case !peer.Heard:
		return "not heard"
	}
	return "healthy"
}

// warnSkew is the difference of two clocks that is worth a word.
const warnSkew = 500 * time.Millisecond

// peerTrouble says in a sentence each what is wrong with the pair.
func peerTrouble(s api.Status) []string {
	peer := s.Peer
	name := cmp.Or(peer.Node, "the peer")
	alone := "all jobs of this node are on both disks"
	if n := peer.UnderReplicated; n > 0 {
		alone = "up to " + plural(n, "job") + " may be on this node's disk only"
	}
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case peer.Refused != "":
		say("%s and this node do not talk: %s; %s.", name, peer.Refused, alone)
	case peer.Session == "down" && peer.Node == "":
		say("No peer has ever answered; %s.", alone)
	case peer.Session == "down" && peer.Since != nil:
		say("%s does not answer since %s; %s.", name, roughly(s.Now.Sub(*peer.Since)), alone)
	case peer.Session == "connected":
		say("Only one of the two directions between %s and this node works; %s.", name, alone)
	case peer.Session == "catchup":
		say("%s is catching up; %s.", name, alone)
	}
	switch {
	case peer.Session == api.SessionNone:
	case !peer.Complete && !peer.Refilling && peer.Behind == 0:
		say("Not all jobs of %s may be on this node: they were not read to their end since it started.", name)
	case !peer.Complete || peer.Refilling:
		say("The copy of %s's jobs on this node is not complete: up to %s to go.", name, plural(peer.Behind, "row"))
	}
	if c := peer.Compare; c.Alarms > 0 {
		say("ALARM: %s damaged, or different at the two nodes again after a repair; see the node's log.", plural(c.Alarms, "job"))
	}
	if c := peer.Compare; c.Error != "" {
		say("The last comparison of the two nodes did not end well: %s.", c.Error)
	}
	if d := inSeconds(peer.SkewSeconds); d.Abs() >= warnSkew && peer.Session != "down" {
		say("The clock of %s is %s.", name, skew(peer.SkewSeconds))
	}
	return out
}

// warnDays is how long before its end a certificate is worth a word.
const warnDays = 30

// certTrouble says in a sentence each which certificates end soon.
func certTrouble(s api.Status) []string {
	c := s.Certificate
	if c == nil {
		return nil
	}
	var out []string
	if c.DaysLeft < warnDays {
		out = append(out, fmt.Sprintf("The certificate of %s is good for %s more, until %s: workmanager init --renew.", s.Node, plural(int64(max(c.DaysLeft, 0)), "day"), c.ExpiresAt.Format(time.DateOnly)))
	}
	if c.CADaysLeft < warnDays {
		out = append(out, fmt.Sprintf("The authority of the pair is good for %s more, until %s: make new keys.", plural(int64(max(c.CADaysLeft, 0)), "day"), c.CAExpiresAt.Format(time.DateOnly)))
	}
	return out
}

// skew says how a clock stands to this node's.
func skew(seconds float64) string {
	d := inSeconds(seconds)
	switch {
	case d.Abs() < 10*time.Millisecond:
		return "in step"
	case d > 0:
		return roughly(d) + " ahead"
	}
	return roughly(-d) + " behind"
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// forecast is the node's sentence on the queue, the one that its page shows,
// with the clock of here.
func forecast(s api.Status, now time.Time) string {
	prefix := ""
	if !s.Writable {
		prefix = "Submits are refused"
		if s.WriteProblem != "" {
			prefix += ": " + s.WriteProblem
		}
		prefix += ". "
	}
	f := s.Forecast
	at := ""
	if f.State == api.ForecastDraining && f.DoneAt != nil && f.LeftSeconds >= 60 {
		at = " (" + clock(now, f.DoneAt.In(now.Location())) + ")"
	}
	return prefix + strings.TrimSpace(f.Text+at+". "+f.Reason)
}

// clock prints when something will be: a time today, else a date.
func clock(now, at time.Time) string {
	if at.Sub(now) < 20*time.Hour {
		return at.Format("15:04")
	}
	return at.Format(time.DateOnly)
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Comma(n) + " " + what + "s"
}
