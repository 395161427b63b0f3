package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"workmanager/web/api"
)

// TestFleet_page: the dashboard shows the machines of a real fleet and what its
// scheduler decides and why, and an operator drains one, stops all and lets them
// come again, from the page alone.
func TestFleet_page(t *testing.T) {
	fleetAtLength(t)
	f := newFleetNode(t, "--max-workers", "2", "--drain-seconds", "2")
	b := browse(t, f.url("/"))
	b.until(20*time.Second, "#fleet", "0 running, of at most 2", "No instance runs", "The first is launched when jobs wait")
	b.until(20*time.Second, "#decisions", "hold at 0", "nothing is queued or running")
	b.until(20*time.Second, ".tiles", "Cost now", "$0")

	var long []string
	for i := range 30 { // more than the lanes of two workers would take at once
		long = append(long, f.enqueue(fmt.Sprint("a chain without an end ", i), endless))
	}
	is := f.state(40*time.Second, "two workers are at work", func(is []api.Instance) bool { return len(working(is)) == 2 })
	for _, i := range is {
		// Its state, jobs, rate, age and price: n/a and not $0, for nobody knows it.
		b.holds(20*time.Second, `(() => { const cells = [...document.querySelectorAll("#fleet tbody tr")].find((r) => r.querySelector("code").textContent === `+quoted(i.ID)+`)?.querySelectorAll("td");
			return cells && cells[0].innerText.includes("working") && +cells[1].innerText > 0 && /^[\d.,]+( [kMG])?$/.test(cells[2].innerText) && / s$/.test(cells[3].innerText) && cells[4].innerText === "n/a"; })()`)
	}
	b.until(10*time.Second, "#fleet", "2 running, of at most 2", is[0].Address)
	b.until(10*time.Second, ".tiles", "unknown")
	b.until(10*time.Second, "#decisions", "launch", "lane-seconds of work are to be done in", "launch into slot 0 (process): "+is[0].ID)

	// One is drained, behind a question; what came of it is said as it happens.
	b.press("Drain " + is[0].ID)
	b.until(10*time.Second, "dialog[open]", "Drain "+is[0].ID, "hands back")
	b.do(chromedp.Click("dialog[open] .danger"))
	b.until(20*time.Second, "#decisions", "drain "+is[0].ID+": an operator asked for it")
	b.holds(40*time.Second, `![...document.querySelectorAll("#fleet code")].some((c) => c.textContent === `+quoted(is[0].ID)+`)`)
	f.state(40*time.Second, "another has come in its place", func(is []api.Instance) bool { return len(working(is)) == 2 })

	// How to stop paying: one button. Then the page says why nothing gets on, and
	// what to do about it, in the sentence that is read first.
	b.until(10*time.Second, "#stop-paying", "Stop all")
	b.press("Stop all")
	b.until(10*time.Second, "dialog[open]", "Stop all 2", "Nothing is launched until")
	b.do(chromedp.Click("dialog[open] .danger"))
	b.until(20*time.Second, "#fleet", "Nothing is launched: an operator asked for it")
	b.until(40*time.Second, "#fleet", "0 running, of at most 2", "No instance runs")
	b.until(20*time.Second, "#forecast-text", "30 jobs queued, and no worker is connected")
	b.until(10*time.Second, "#forecast-reason", "an operator asked for it", "Resume launches under Fleet")
	if left := f.alive(); len(left) > 0 {
		t.Errorf("the page shows no instance, and %v run", left)
	}
	for _, width := range []int64{390, 1280} {
		b.do(chromedp.EmulateViewport(width, 900))
		b.holds(10*time.Second, fmt.Sprintf(`document.documentElement.scrollWidth <= %d`, width))
	}
	b.press("Resume launches")
	b.do(chromedp.Click("dialog[open] .danger"))
	f.state(40*time.Second, "they come again", func(is []api.Instance) bool { return len(working(is)) == 2 })
	b.until(20*time.Second, "#fleet", "2 running, of at most 2", "working", "Pause launches")
	for _, width := range []int64{390, 1280} {
		b.do(chromedp.EmulateViewport(width, 900))
		b.holds(10*time.Second, fmt.Sprintf(`document.documentElement.scrollWidth <= %d`, width))
	}

	// More decisions than a status has: they came by the events of the stream.
	b.holds(20*time.Second, `document.querySelectorAll("#decisions tbody tr").length > 5`)
	// What the command line tells, the page told too.
	if said := f.cli("fleet", "explain", "--limit", "50"); !strings.Contains(said, "drain ") {
		t.Errorf("fleet explain: %s", said)
	}
	t.Run("axe finds nothing, in light and dark", func(t *testing.T) {
		axe := axeCore(t)
		for _, dark := range []bool{false, true} {
			b.dark(dark)
			b.accessible(t, axe, fmt.Sprintf("the fleet, dark %v", dark))
		}
	})
	for _, id := range long {
		f.must(http.StatusOK, "DELETE", "/v1/jobs/"+id, nil)
	}
	b.until(30*time.Second, "#forecast-text", "Nothing queued")
	poll(t, 60*time.Second, "all workers are gone", func() string { return strings.Join(f.alive(), " ") })
	b.until(20*time.Second, "#fleet", "No instance runs")
}
