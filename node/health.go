package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"workmanager/web/api"
)

const (
	// standstill is how long the loop may not step, which it does ten times a
	// second; it waits for the disk with what it writes.
	standstill = 45 * time.Second
	// commitPatience is how long one commit may wait for the disk.
	commitPatience = time.Minute
	// notifyInterval is how often the service manager hears how the node is.
	notifyInterval = 5 * time.Second
)

// alive says what stands still, nil if nothing does. It takes no lock that the
// work holds, but for that of the clock of commits.
func (n *Node) alive() error {
	if err := n.store.Err(); err != nil {
		return fmt.Errorf("the database has failed: %w", err)
	}
	if at := n.stepped.Load(); at != 0 {
		if d := n.now().Sub(time.UnixMicro(at)); d > standstill {
			return fmt.Errorf("its loop has stood still for %s", d.Round(time.Second))
		}
	}
	if d := n.store.Commits().Running; d > commitPatience {
		return fmt.Errorf("a commit waits for the disk for %s", d.Round(time.Second))
	}
	return nil
}

// notifier is the service manager.
type notifier struct {
	send     func(state string) error
	watchdog time.Duration
}

// notify tells the service manager that the node is ready once it is, and then
// how it is. It keeps the watchdog quiet only while the node works: one whose
// locks are all held for good answers no status, and so is started again.
func (n *Node) notify(ctx context.Context) error {
	if n.notifier.send == nil {
		<-ctx.Done()
		return nil
	}
	interval := notifyInterval
	if w := n.notifier.watchdog; w > 0 {
		interval = min(interval, w/3)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	ready, last, failed := "READY=1\n", "", false
	for {
		state := ""
		st, err := n.status.Status(ctx)
		if err == nil {
			err = n.alive()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			state = "STATUS=" + err.Error()
			n.log.Error("the watchdog is not told that the node works", "err", err)
		default:
			state, ready = ready+"WATCHDOG=1\n", ""
			if s := statusLine(st); s != last {
				state, last = state+"STATUS="+s, s
			}
		}
		if err := n.notifier.send(state); err != nil && !failed {
			failed = true
			n.log.Warn("the service manager cannot be told how the node is", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// stopping tells the service manager that the node ends.
func (n *Node) stopping() {
	if n.notifier.send != nil {
		_ = n.notifier.send("STOPPING=1\nSTATUS=Stopping: leases are handed back, requests under way end.") // it sees so itself
	}
}

// statusLine is what systemctl status shows of the node.
func statusLine(st api.Status) string {
	s := st.Forecast.Text
	if at := st.Forecast.DoneAt; at != nil {
		s += " (" + at.UTC().Format("2006-01-02 15:04") + " UTC)"
	}
	return strings.TrimSpace(s + ". " + st.Forecast.Reason)
}
