package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/web/api"
)

// The codes of monitoring systems.
const (
	checkOK = iota
	checkWarning
	checkCritical
	checkUnknown
)

var checkWords = []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

func checkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "check", Usage: "say in a line if all is well; exit 0 ok, 1 warning, 2 critical, 3 unknown", Category: groupCheck, DisableDefaultText: true},
		&cli.DurationFlag{Name: "max-oldest", Usage: "warn if a job waits for longer than `DURATION`; 0 is never", Value: time.Hour, Category: groupCheck},
		&cli.DurationFlag{Name: "max-lag", Usage: "warn if a row is older than `DURATION` and not at the peer", Value: 5 * time.Second, Category: groupCheck},
		&cli.IntFlag{Name: "min-nodes", Usage: "critical with fewer than `N` nodes that answer, 1 or 2", Value: 1, Category: groupCheck},
	}
}

const groupCheck = "FOR MONITORING"

// checked is what status --check prints.
type checked struct {
	State    string   `json:"state"` // OK, WARNING, CRITICAL or UNKNOWN
	Code     int      `json:"code"`
	Problems []string `json:"problems"` // the gravest first
	Said     string   `json:"said"`     // the line
}

// check judges a status by the bounds that the flags give.
func check(s api.Status, oldest, lag time.Duration, nodes int) checked {
	grave, light := []string{}, []string{}
	note := func(list *[]string, holds bool, format string, args ...any) {
		if holds {
			*list = append(*list, fmt.Sprintf(format, args...))
		}
	}
	answer := 1
	if s.Peer.Heard || s.Peer.Session == "sync" || s.Peer.Session == "catchup" {
		answer = 2
	}
	open := s.Queued + s.Leased
	note(&grave, !s.Writable, "new jobs are refused: %s", s.WriteProblem)
	note(&grave, s.Alarms > 0, "%s of different values for one job", plural(s.Alarms, "pair"))
	note(&grave, s.Peer.Compare.Alarms > 0, "%s damaged", plural(s.Peer.Compare.Alarms, "row"))
	note(&grave, open > 0 && s.Workers == 0, "%s and no worker", plural(open, "job"))
	note(&grave, answer < nodes, "%d of %d nodes answers", answer, nodes)
	if c := s.Certificate; c != nil {
		left := min(c.DaysLeft, c.CADaysLeft)
		list := &light
		if left < 7 {
			list = &grave
		}
		note(list, left < warnDays, "a certificate ends in %s", plural(int64(max(left, 0)), "day"))
	}
	if at := s.OldestQueuedAt; at != nil && oldest > 0 {
		age := s.Now.Sub(*at)
		note(&light, age > oldest, "the oldest job waits for %s", roughly(age))
	}
	note(&light, s.Peer.Session != api.SessionNone && s.Peer.Session != "sync", "the session with the peer is %s", s.Peer.Session)
	note(&light, inSeconds(s.Peer.LagSeconds) > lag, "rows are %s old and not at the peer", roughly(inSeconds(s.Peer.LagSeconds)))
	note(&light, inSeconds(s.Peer.SkewSeconds).Abs() >= failSkew, "the clocks of the two nodes differ by %s", roughly(inSeconds(s.Peer.SkewSeconds).Abs()))
	note(&light, len(s.Audit.Quarantined) > 0, "%s quarantined", plural(int64(len(s.Audit.Quarantined)), "worker"))
	note(&light, s.Fleet.Leader && s.Fleet.Paused != "", "launches pause: %s", s.Fleet.Paused)
	code := checkOK
	switch {
	case len(grave) > 0:
		code = checkCritical
	case len(light) > 0:
		code = checkWarning
	}
	problems := append(grave, light...)
	figures := fmt.Sprintf("node %s, %s queued, %d leased, %s", s.Node, plural(s.Queued, "job"), s.Leased, plural(int64(s.Workers), "worker"))
	return checked{State: checkWords[code], Code: code, Problems: problems, Said: strings.Join(append(problems, figures), "; ")}
}

func (p *program) statusCheck(c *cli.Context) error {
	nodes := c.Int("min-nodes")
	if nodes < 1 || nodes > 2 {
		return usagef("--min-nodes must be 1 or 2: %d given", nodes)
	}
	cl := p.client(c)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(c.Context, checkTimeout)
	defer cancel()
	var out checked
	if s, err := cl.Status(ctx); err != nil {
		if c.Context.Err() != nil {
			return c.Context.Err()
		}
		out = checked{State: checkWords[checkUnknown], Code: checkUnknown, Problems: []string{err.Error()}, Said: err.Error()}
	} else {
		out = check(s, c.Duration("max-oldest"), c.Duration("max-lag"), nodes)
	}
	if f := inWords(c); f != formatTable {
		if err := p.printJSON(f, out); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "%s: %s\n", out.State, out.Said)
	}
	if out.Code == checkOK {
		return nil
	}
	return &failure{exit: out.Code, code: "check", said: true, err: fmt.Errorf("%s", out.Said)}
}

// checkTimeout is shorter than what monitoring systems give a check.
const checkTimeout = 8 * time.Second
