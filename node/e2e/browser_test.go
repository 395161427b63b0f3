package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// tab is a page in a browser without a window. Its console must stay empty:
// what the policy of the page stops, and each error of a script, is said there.
type tab struct {
	t      testing.TB // of the part of the test that runs
	parent testing.TB
	ctx    context.Context
	url    string
}

// chromium finds the browser, or skips the test aloud.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	skip(t, "needs chromium, which is not installed")
	return ""
}

// browse opens a tab at the page of a node, in a browser of its own.
func browse(t *testing.T, url string, options ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	return browseFor(t, 5*time.Minute, url, options...)
}

// browseFor is browse for a tab that is done with after d at most.
func browseFor(t *testing.T, d time.Duration, url string, options ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 900))
	for _, f := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"} {
		opts = append(opts, chromedp.Flag(f, true))
	}
	ctx, stop := chromedp.NewExecAllocator(t.Context(), append(opts, options...)...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, d)
	t.Cleanup(stop)
	return opened(t, ctx, url)
}

// another opens one more tab of the same browser.
func (b *tab) another(t *testing.T, url string) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(b.ctx)
	t.Cleanup(stop)
	return opened(t, ctx, url)
}

func opened(t *testing.T, ctx context.Context, url string) *tab {
	t.Helper()
	if err := chromedp.Do(ctx); err != nil { // opens the tab: always first
		t.Fatalf("open a browser: %v", err)
	}
	b := &tab{t: t, parent: t, ctx: ctx, url: url}
	console := chromedp.Console(ctx)
	t.Cleanup(func() {
		if ctx.Err() != nil {
			return
		}
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`console.log("end of test"); true`)); err != nil {
			t.Errorf("the console of %s cannot be asked: %v", url, err)
			return
		}
		for m, err := range console {
			if err != nil || m.Text == "end of test" {
				break
			}
			t.Errorf("console of %s: %s: %s", url, m.Type, m.Text)
		}
	})
	b.do(chromedp.Navigate(url))
	return b
}

// do does the steps, or fails the test. A step whose element the page replaced
// before the step came to it is done again.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, time.Minute)
	defer stop()
	for _, step := range steps {
		err := chromedp.Do(ctx, step)
		for replaced(err) && ctx.Err() == nil {
			pause(10 * time.Millisecond)
			err = chromedp.Do(ctx, step)
		}
		if err != nil {
			b.t.Fatalf("in the browser: %v; the page says:\n%s", err, b.all())
		}
	}
}

// replaced tells that an element, or the page around it, went between the moment
// it was found and the step that needs it, which then did nothing.
func replaced(err error) bool {
	var e *cdproto.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, gone := range []string{"Could not find node with given id", "Node is detached from document", "Execution context was destroyed", "Cannot find context with specified id"} {
		if strings.HasPrefix(e.Message, gone) {
			return true
		}
	}
	return false
}

// leave does the steps, of which the last leads to another page, and waits until
// that one is there: until then every word of the old page is still to be read.
func (b *tab) leave(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`window.left = true`))
	b.do(steps...)
	b.holds(20*time.Second, `!window.left && document.readyState === "complete"`)
}

// all is the text of the page.
func (b *tab) all() string {
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

// text returns the text of the first element that fits, "" if there is none.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return ask[string](b, `document.querySelector(`+quoted(selector)+`)?.innerText ?? ""`)
}

// ask evaluates an expression in the page, which changes nothing there: it is
// asked again where the page went meanwhile.
func ask[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	for replaced(err) && b.ctx.Err() == nil {
		pause(10 * time.Millisecond)
		v, err = chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	}
	if err != nil {
		b.t.Fatalf("ask the page %s: %v", expression, err)
	}
	return v
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // of a string, never fails
	return string(b)
}

// until waits until an element says all of the words.
func (b *tab) until(d time.Duration, selector string, words ...string) string {
	b.t.Helper()
	var got string
	poll(b.t, d, selector+" says "+strings.Join(words, ", "), func() string {
		got = b.text(selector)
		for _, w := range words {
			if !strings.Contains(got, w) {
				return got + "\n\nand the page:\n" + tail(b.all(), 3000)
			}
		}
		return ""
	})
	return got
}

// holds waits until an expression is true in the page.
func (b *tab) holds(d time.Duration, expression string) {
	b.t.Helper()
	poll(b.t, d, expression, func() string {
		if ask[bool](b, "Boolean("+expression+")") {
			return ""
		}
		return tail(b.all(), 3000)
	})
}

// dark chooses the colours that the system asks for.
func (b *tab) dark(on bool) {
	b.t.Helper()
	scheme := "light"
	if on {
		scheme = "dark"
	}
	b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// inputFile writes a file to submit.
func inputFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fill puts text into a field as typing does.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`{ const el = document.querySelector(`+quoted(selector)+`); el.focus(); el.select(); }`), chromedp.SendKeys(selector, text))
}

// submit sends a file by the file chooser and returns the job's ID.
func (b *tab) submit(path, iterations string) string {
	b.t.Helper()
	before := b.text("#submit-sent")
	b.do(chromedp.SetUploadFiles("#file", []string{path}))
	b.until(10*time.Second, "#file-name", filepath.Base(path))
	b.fill("#iterations", iterations)
	b.do(chromedp.Click("#enqueue"))
	return b.accepted(before)
}

// accepted waits for another job than before was.
func (b *tab) accepted(before string) string {
	b.t.Helper()
	poll(b.t, 20*time.Second, "a job is accepted", func() string {
		if now := b.text("#submit-sent"); now != "" && now != before {
			return ""
		}
		return b.text("#submit-error") + tail(b.all(), 2000)
	})
	return ask[string](b, `document.querySelector("#submit-sent code").textContent`)
}

// row is the selector of one of my jobs.
func row(id string) string { return `#mine li:has(a[href="#/job/` + id + `"])` }

// press clicks the button with a label.
func (b *tab) press(label string) {
	b.t.Helper()
	b.do(chromedp.Click(`button[aria-label=` + quoted(label) + `]`))
}
