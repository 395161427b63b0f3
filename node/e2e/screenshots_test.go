package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"workmanager/web/api"
)

// TestScreenshots takes the pictures of the README from the running program. It
// runs only if it is told where to put them:
//
//	WORKMANAGER_E2E_SHOTS=web/screenshots go test -run Screenshots ./node/e2e
func TestScreenshots(t *testing.T) {
	dir := shotsDir(t)
	p := newPair(t, "--workers", "1")
	b := browse(t, p.a.url("/"))
	shoot := func(name string) { t.Helper(); b.shoot(dir, name) }
	phone := b.phone
	b.dark(false)
	phone(false)
	b.until(20*time.Second, "#forecast-text", "Nothing queued")
	b.until(20*time.Second, "#nodes-table", "in sync")
	shoot("empty-light")
	phone(true)
	shoot("empty-phone")
	phone(false)

	// Work for some minutes, a part of it from this browser.
	b.submit(inputFile(t, "header.bin", "a block header"), "1500000")
	b.submit(inputFile(t, "wallet.dat", "key material"), "30000000")
	var lines strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&lines, "{\"data\":\"%s\",\"iterations\":%d}\n", "YWJj"+fmt.Sprintf("%04d", i), 4_000_000+i*500)
	}
	p.a.must(200, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()), "Content-Type", "application/x-ndjson")
	b.submit(inputFile(t, "photo.raw", "a photo"), "50000000")
	withdrawn := b.submit(inputFile(t, "draft.txt", "a draft"), "40000000")
	b.press("Cancel job " + withdrawn)
	b.do(chromedp.Click("dialog[open] .danger"))
	pause(time.Duration(number(t, "WORKMANAGER_E2E_SHOTS_AFTER", 75)) * time.Second)
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#submit-sent").textContent`))
	shoot("busy-light")
	b.dark(true)
	shoot("busy-dark")
	phone(true)
	shoot("busy-phone-dark")
	b.dark(false)
	shoot("busy-phone")
	phone(false)
	done := ask[string](b, `document.querySelectorAll("#mine li a")[document.querySelectorAll("#mine li a").length - 1].textContent`)
	b.do(chromedp.Navigate(p.a.url("/") + "#/job/" + done))
	b.until(20*time.Second, "#receipt", "Signed by")
	shoot("job-light")
	phone(true)
	shoot("job-phone")
	phone(false)
	b.do(chromedp.Navigate(p.a.url("/") + "#/"))

	p.b.kill()
	b.until(30*time.Second, "#forecast-text", "b unreachable")
	b.dark(true)
	shoot("split-dark")
	b.dark(false)
	shoot("split-light")
}

// TestScreenshots_fleet takes those of a node that starts workers of its own.
func TestScreenshots_fleet(t *testing.T) {
	dir := shotsDir(t)
	f := newFleetNode(t, "--name", "c", "--max-workers", "4", "--drain-seconds", "5")
	b := browse(t, f.url("/"))
	shoot := func(name string) { t.Helper(); b.shoot(dir, name) }
	phone := b.phone
	phone(false)
	b.dark(false)
	b.until(20*time.Second, "#decisions", "hold at 0")
	shoot("fleet-empty-light")
	var lines strings.Builder
	for i := range 400 {
		fmt.Fprintf(&lines, "{\"data\":\"%s\",\"iterations\":%d}\n", "YWJj"+fmt.Sprintf("%04d", i), 60_000_000+i*500)
	}
	f.must(200, "POST", "/v1/jobs/batch", strings.NewReader(lines.String()), "Content-Type", "application/x-ndjson")
	is := f.state(time.Minute, "four are at work", func(is []api.Instance) bool { return len(working(is)) == 4 })
	pause(20 * time.Second)
	b.press("Drain " + is[1].ID)
	b.do(chromedp.Click("dialog[open] .danger"))
	b.until(20*time.Second, "#decisions", "drain "+is[1].ID)
	pause(2 * time.Second)
	shoot("fleet-light")
	b.dark(true)
	shoot("fleet-dark")
	phone(true)
	shoot("fleet-phone-dark")
	b.dark(false)
	shoot("fleet-phone")
	phone(false)
	b.press("Stop all")
	b.do(chromedp.Click("dialog[open] .danger"))
	b.until(time.Minute, "#forecast-text", "no worker is connected")
	shoot("fleet-stopped-light")
}

// shotsDir is where pictures go, or the test is skipped.
func shotsDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WORKMANAGER_E2E_SHOTS")
	if dir == "" {
		t.Skip("takes pictures only where WORKMANAGER_E2E_SHOTS names a folder")
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join("..", "..", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// shoot takes a picture of the whole page.
func (b *tab) shoot(dir, name string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`document.activeElement?.blur(); scrollTo(0, 0)`))
	pause(300 * time.Millisecond)
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		picture, err = fewColours(picture)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// phone gives the page the width of a phone, or of a desk.
func (b *tab) phone(on bool) {
	b.t.Helper()
	if on {
		b.do(chromedp.EmulateViewport(390, 844))
	} else {
		b.do(chromedp.EmulateViewport(1280, 900))
	}
}

// fewColours makes a picture small: its 256 most frequent colours, and for each
// other the nearest of them.
func fewColours(in []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(img.At(x, y)).(color.RGBA) }
	often := map[color.RGBA]int{}
	r := img.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			often[at(x, y)]++
		}
	}
	list := slices.SortedFunc(maps.Keys(often), func(a, b color.RGBA) int { return cmp.Compare(often[b], often[a]) })
	var palette color.Palette
	for _, c := range list[:min(len(list), 256)] {
		palette = append(palette, c)
	}
	out, known := image.NewPaletted(r, palette), map[color.RGBA]uint8{}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := at(x, y)
			i, ok := known[c]
			if !ok {
				i = uint8(palette.Index(c))
				known[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out)
	return b.Bytes(), err
}
