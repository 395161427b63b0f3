package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// meter shows how far some things have come: bars on a terminal, redrawn four
// times a second, and elsewhere a line every --progress. It writes to stderr
// only. It is safe for concurrent use, but for close.
type meter struct {
	p        *program
	what     string // what the things are, in the plural
	start    time.Time
	done     chan struct{} // closed by close
	ended    sync.WaitGroup
	bars     progress.Writer   // nil: lines
	rendered chan struct{}     // closed when the bars are not drawn any more
	sum      *progress.Tracker // the one bar of many things; nil: a bar each
	held     *heldOutput       // what was printed meanwhile; nil: it went out

	mu     sync.Mutex // guards tracks
	tracks []*track
}

// heldOutput keeps what is printed on the terminal that has the bars.
type heldOutput struct {
	bytes.Buffer
	to io.Writer
}

// track is one thing of a meter.
type track struct {
	m     *meter
	bar   *progress.Tracker // nil: none of its own
	label string

	mu          sync.Mutex // guards the rest
	done, total uint64
	over        bool
}

// maxBars is up to how many things get a bar each.
const maxBars = 8

// meter starts showing count things. Close it before the next one.
func (p *program) meter(c *cli.Context, what string, count int) *meter {
	m := &meter{p: p, what: what, done: make(chan struct{}), start: time.Now()}
	p.shown = m
	if isTerminal(p.stderr) && !c.Bool("no-progress") && os.Getenv("CI") == "" && os.Getenv("TERM") != "dumb" {
		m.startBars(count)
		if isTerminal(p.stdout) {
			m.held = &heldOutput{to: p.stdout}
			p.stdout = m.held
		}
		return m
	}
	if interval := c.Duration("progress"); interval > 0 {
		m.ended.Go(func() { m.lines(interval) })
	}
	return m
}

func (m *meter) startBars(count int) {
	w := progress.NewWriter()
	w.SetOutputWriter(m.p.stderr)
	w.SetUpdateFrequency(250 * time.Millisecond)
	w.SetTrackerLength(26)
	w.SetTrackerPosition(progress.PositionLeft)
	if f, ok := m.p.stderr.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			w.SetTerminalWidth(width - 1)
		}
	}
	style := progress.StyleDefault // no colours, so NO_COLOR has nothing to forbid
	style.Chars = progress.StyleChars{BoxLeft: "[", BoxRight: "]", Finished: "#", Finished25: "-", Finished50: "-", Finished75: "-", Unfinished: "-", Indeterminate: progress.IndeterminateIndicatorMovingBackAndForth("<#>", 200*time.Millisecond)}
	style.Options.Separator = "  "
	style.Options.PercentFormat = "%3.0f%%"
	style.Visibility = progress.StyleVisibility{Percentage: true, Tracker: true}
	w.SetStyle(style)
	m.bars = w
	if count > maxBars {
		m.sum = &progress.Tracker{Total: int64(count), AutoStopDisabled: true}
		w.AppendTracker(m.sum)
		m.tell()
	}
	m.rendered = make(chan struct{})
	m.ended.Go(func() {
		defer close(m.rendered)
		w.Render()
	})
}

// track adds a thing; total 0 is not known yet.
func (m *meter) track(label string, total uint64) *track {
	t := &track{m: m, label: label, total: total}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tracks = append(m.tracks, t)
	if m.bars != nil && m.sum == nil {
		t.bar = &progress.Tracker{Message: label, Total: int64(total), AutoStopDisabled: true}
		m.bars.AppendTracker(t.bar)
	}
	return t
}

// set says how far the thing has come, and in a few words how it goes.
func (t *track) set(done uint64, note string) {
	t.mu.Lock()
	t.done = done
	t.mu.Unlock()
	if t.bar != nil {
		t.bar.SetValue(int64(done))
		t.bar.UpdateMessage(t.label + "  " + note)
	}
}

// resize says how much there is to do.
func (t *track) resize(total uint64) {
	t.mu.Lock()
	changed := t.total != total
	t.total = total
	t.mu.Unlock()
	if changed && t.bar != nil {
		t.bar.UpdateTotal(int64(total))
	}
}

// advance is set for a computation of our own, whose rate is known here.
func (t *track) advance(done uint64) {
	t.mu.Lock()
	total := t.total
	t.mu.Unlock()
	note := number(float64(done)) + "/" + number(float64(total))
	if spent := time.Since(t.m.start).Seconds(); spent > 1 {
		note += "  " + number(float64(done)/spent) + " it/s"
	}
	if eta := t.m.eta(float64(done) / float64(max(1, total))); eta != "" {
		note += "  " + eta
	}
	t.set(done, note)
}

// end says that the thing is done, well or not.
func (t *track) end() {
	t.mu.Lock()
	first := !t.over
	t.over, t.done = true, t.total
	t.mu.Unlock()
	if !first {
		return
	}
	if t.m.sum != nil {
		t.m.tell()
	}
}

// tell brings the one bar of many things up to date.
func (m *meter) tell() {
	over, all, _ := m.state()
	m.sum.SetValue(int64(over))
	m.sum.UpdateMessage(fmt.Sprintf("%d of %d %s  %s", over, max(int64(all), m.sum.Total), m.what, m.eta(float64(over)/float64(m.sum.Total))))
}

// state returns how many things are over, how many there are, and the part of
// all their work that is done.
func (m *meter) state() (over, all int, part float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var done, total float64
	for _, t := range m.tracks {
		t.mu.Lock()
		if t.over {
			over++
		}
		done, total = done+float64(t.done), total+float64(t.total)
		t.mu.Unlock()
	}
	if total > 0 {
		part = done / total
	}
	return over, len(m.tracks), part
}

func (m *meter) eta(part float64) string {
	spent := time.Since(m.start)
	if part < 0.001 || spent < time.Second {
		return ""
	}
	return "ETA " + roughly(time.Duration(float64(spent)*(1-part)/part))
}

func (m *meter) lines(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-tick.C:
			over, all, part := m.state()
			line := fmt.Sprintf("workmanager: %d of %d %s done, %d%%", over, all, m.what, int(100*part))
			if eta := m.eta(part); eta != "" {
				line += ", " + eta
			}
			fmt.Fprintln(m.p.stderr, line)
		}
	}
}

// close ends the meter, takes its bars off the screen and lets out what was
// printed meanwhile.
func (m *meter) close() {
	close(m.done)
	if m.bars != nil {
		// Stop does nothing before Render has begun, so it is said until heard.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for rendering := true; rendering; {
			m.bars.Stop()
			select {
			case <-m.rendered:
				rendering = false
			case <-tick.C:
			}
		}
		// The last drawing is one line a bar. The library can take bars away
		// itself, but then counts its lines wrong.
		fmt.Fprint(m.p.stderr, strings.Repeat(text.CursorUp.Sprint()+text.EraseLine.Sprint(), m.bars.LengthActive()))
	}
	m.ended.Wait()
	m.p.shown = nil
	if m.held != nil {
		m.p.stdout = m.held.to
		_, _ = m.held.WriteTo(m.p.stdout) // the next print meets the same error
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
