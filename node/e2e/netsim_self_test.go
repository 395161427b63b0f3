package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary starts itself again as another program if sideEnv names one
// of sides; it does so here because TestMain would build the binary under test.
const sideEnv = "E2E_SIDE"

var sides = map[string]func(args []string) error{"get": sideGet, "victim": sideVictim}

func init() {
	side := sides[os.Getenv(sideEnv)]
	if side == nil {
		return
	}
	if err := side(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// side returns the command line of a side program.
func side(t testing.TB, name string, args ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"env", sideEnv + "=" + name, self}, args...)
}

// sideGet prints what a URL answers.
func sideGet(args []string) error {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(args[0])
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(os.Stdout, res.Body)
	return err
}

// sideVictim makes a network with a process and its child, whose argument is
// given, says so and waits to be killed.
func sideVictim(args []string) error {
	n := startNet(alone{}, 1)
	if err := n.Host("10.9.0.1").Start(family(args[0])); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// alone is the part of a testing.TB that a Net needs, in a program without tests.
type alone struct{ testing.TB }

func (alone) Helper()             {}
func (alone) Cleanup(func())      {}
func (alone) Log(...any)          {}
func (alone) Logf(string, ...any) {}
func (alone) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// family is a shell with a child in the background and one that it awaits; the
// arguments of all three hold the mark.
func family(mark string) *exec.Cmd {
	return exec.Command("sh", "-c", "sleep "+mark+" & sleep "+mark+"; true")
}

// living returns the processes in whose arguments the mark is. A zombie has none.
func living(t testing.TB, mark string) (pids []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && bytes.Contains(b, []byte(mark)) && !bytes.Contains(b, []byte(os.Args[0])) { // the victim itself has it too
			pids = append(pids, strings.Split(name, "/")[2])
		}
	}
	return pids
}

// twoHosts returns a network of two.
func twoHosts(t *testing.T, seed uint64) (n *Net, a, b *Host) {
	t.Helper()
	n = newNet(t, seed)
	return n, n.Host("10.9.0.1"), n.Host("10.9.0.2")
}

// pings are the answers to pings: their numbers in the order they came, and the
// time each took.
type pings struct {
	seq  []int
	took []time.Duration
}

// median returns the time in the middle.
func (p pings) median() time.Duration {
	took := slices.Sorted(slices.Values(p.took))
	if len(took) == 0 {
		return 0
	}
	return took[len(took)/2]
}

// ping sends count pings from a to b, one every 2 ms, and returns when most
// answers have come, or none for two seconds after the last was sent, and for ten
// while there are fewer than least. The kernel of b answers.
func ping(t *testing.T, a, b *Host, count, least, most int) (got pings) {
	t.Helper()
	c := listenPacket(t, a, "ip4:icmp", a.IP)
	defer c.Close()
	begin := time.Now()
	answered := make(chan struct{})
	var sent atomic.Bool
	var answers atomic.Int64
	patience := func() {
		d := 10 * time.Second
		if sent.Load() && answers.Load() >= int64(least) {
			d = 2 * time.Second // without an answer: then no other comes
		}
		if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Error(err)
		}
	}
	go func() {
		defer close(answered)
		for buf := make([]byte, 2048); len(got.seq) < most; {
			patience()
			k, _, err := c.ReadFrom(buf)
			if err != nil {
				return // nothing more has come in time
			}
			if m := buf[:k]; k == len(echo(0, 0)) && m[0] == 0 { // an echo reply
				got.seq = append(got.seq, int(m[6])<<8|int(m[7]))
				var at time.Duration
				for _, b := range m[8:] {
					at = at<<8 | time.Duration(b)
				}
				got.took = append(got.took, time.Since(begin)-at)
				answers.Add(1)
			}
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for seq := range count {
		if _, err := c.WriteTo(echo(seq, time.Since(begin)), &net.IPAddr{IP: net.ParseIP(b.IP)}); err != nil {
			t.Error(err)
		}
		<-tick.C
	}
	sent.Store(true)
	patience()
	<-answered
	return got
}

// echo is an ICMP echo request with the instant at which it was sent.
func echo(seq int, at time.Duration) []byte {
	m := []byte{8, 0, 0, 0, 'w', 'm', byte(seq >> 8), byte(seq)}
	for shift := 56; shift >= 0; shift -= 8 {
		m = append(m, byte(at>>shift))
	}
	sum := 0
	for i := 0; i < len(m); i += 2 {
		sum += int(m[i])<<8 | int(m[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	m[2], m[3] = byte(sum>>8), byte(sum)
	return m
}

// listenPacket opens a socket in a host that is closed at the end.
func listenPacket(t *testing.T, h *Host, network, addr string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	var err error
	h.Do(func() { c, err = net.ListenPacket(network, addr) })
	if err != nil {
		t.Fatalf("host %s: %v", h.IP, err)
	}
	t.Cleanup(func() { _ = c.Close() }) // ping has closed it
	return c
}

// serve runs an HTTP server in a host that sends size bytes to everybody.
func serve(t *testing.T, h *Host, port string, size int) {
	t.Helper()
	var l net.Listener
	var err error
	h.Do(func() { l, err = net.Listen("tcp", h.IP+":"+port) })
	if err != nil {
		t.Fatalf("host %s: %v", h.IP, err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, size)) // the client may have gone
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l) // ends by Close
	}()
	t.Cleanup(func() {
		_ = srv.Close() // the test is over
		<-served
	})
}

// get asks a URL from a host on a new connection and returns the size of the answer.
func get(t *testing.T, h *Host, url string, timeout time.Duration) (int, error) {
	t.Helper()
	c := &http.Client{Timeout: timeout, Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return len(b), err
}

// arrives tells whether any of several datagrams from a reaches b. Where one is
// to, there is time for it; where none is, the wait is short.
func arrives(t *testing.T, a, b *Host, expected bool) bool {
	t.Helper()
	from, to := listenPacket(t, a, "udp4", a.IP+":0"), listenPacket(t, b, "udp4", b.IP+":7946")
	defer from.Close()
	defer to.Close()
	for range 5 {
		if _, err := from.WriteTo([]byte("hint"), to.LocalAddr()); err != nil {
			t.Error(err)
		}
	}
	d := 300 * time.Millisecond
	if expected {
		d = 10 * time.Second
	}
	if err := to.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Error(err)
	}
	k, _, err := to.ReadFrom(make([]byte, 100))
	return err == nil && k == 4
}

// TestNetsimRules shows of every rule that it does what it says, and no more.
func TestNetsimRules(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	n, a, b := twoHosts(t, 42)
	t.Logf("two hosts and the probe took %v", time.Since(begin))
	whole := func(t *testing.T) {
		t.Helper()
		if got := ping(t, a, b, 20, 20, 20); len(got.seq) != 20 || !slices.IsSorted(got.seq) {
			t.Errorf("without rules: answers %v, want 20 in order", got.seq)
		}
	}
	t.Run("none", func(t *testing.T) {
		whole(t)
		if s := n.Stats(); s.Forwarded < 40 || s.Cut+s.Lost+s.Dup+s.Full != 0 {
			t.Errorf("stats %+v", s)
		}
	})
	for _, tc := range []struct {
		name string
		rule Rule
		want int // answers
		ok   func(got pings) bool
	}{
		{"loss", Rule{Loss: 1}, 0, nil},
		{"corrupt_is_loss", Rule{Corrupt: 1}, 0, nil},
		{"dup", Rule{Dup: 1}, 200, nil},
		{"delay", Rule{Delay: 60 * time.Millisecond}, 100, func(got pings) bool {
			return slices.Min(got.took) >= 60*time.Millisecond && slices.Min(got.took) < 160*time.Millisecond // the fastest: a busy machine adds to the others
		}},
		{"jitter", Rule{Jitter: 60 * time.Millisecond}, 100, func(got pings) bool {
			return slices.Max(got.took) >= 50*time.Millisecond && slices.Min(got.took) < 30*time.Millisecond && !slices.IsSorted(got.seq)
		}},
		{"reorder", Rule{Reorder: 0.3}, 100, func(got pings) bool {
			return !slices.IsSorted(got.seq) && slices.Max(got.took) >= 10*time.Millisecond
		}},
		{"others", Rule{Cut: true, Match: udpOnly}, 100, func(got pings) bool { return slices.IsSorted(got.seq) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n.Set(a, b, tc.rule)
			got := ping(t, a, b, 100, tc.want, tc.want+1)
			if len(got.seq) != tc.want || tc.ok != nil && !tc.ok(got) {
				t.Errorf("%v: %d answers, want %d: %v, median %v, %v", tc.rule, len(got.seq), tc.want, got.seq, got.median(), got.took)
			}
			t.Logf("%d answers, median %v", len(got.seq), got.median())
			n.Heal()
			whole(t)
		})
	}
	t.Run("both_ways", func(t *testing.T) {
		n.Both(a, b, Rule{Delay: 50 * time.Millisecond})
		if got := ping(t, a, b, 50, 50, 50); len(got.seq) != 50 || slices.Min(got.took) < 100*time.Millisecond || slices.Min(got.took) > 200*time.Millisecond {
			t.Errorf("50 ms each way: %d answers, the fastest in %v, want 50 in 100 ms and more", len(got.seq), slices.Min(got.took))
		}
		n.Heal()
		whole(t)
	})
	t.Run("rate", func(t *testing.T) {
		const size, rate = 300_000, 500_000
		serve(t, b, "8081", size)
		url := "http://" + b.IP + ":8081"
		n.Set(b, a, Rule{RateBps: rate})
		begin := time.Now()
		k, err := get(t, a, url, 20*time.Second)
		if took := time.Since(begin); err != nil || k != size || took < size*time.Second/rate {
			t.Errorf("%d bytes at %d a second: got %d in %v, %v", size, rate, k, took, err)
		} else {
			t.Logf("%d bytes at %d a second: %v", size, rate, took)
		}
		n.Heal()
		whole(t)
	})
}

// TestNetsimSeed shows that one seed loses the same packets again, whatever else
// befalls them, and another seed others.
func TestNetsimSeed(t *testing.T) {
	t.Parallel()
	seen := map[string][]int{}
	for _, tc := range []struct {
		name string
		seed uint64
		rule Rule
	}{
		{"once", 42, Rule{Loss: 0.3}},
		{"again", 42, Rule{Loss: 0.3}},
		{"late", 42, Rule{Loss: 0.3, Delay: 5 * time.Millisecond, Dup: 0.1, Jitter: 5 * time.Millisecond, Reorder: 0.1}},
		{"other", 43, Rule{Loss: 0.3}},
	} {
		n, a, b := twoHosts(t, tc.seed)
		n.Set(a, b, tc.rule)
		got := ping(t, a, b, 200, 110, 1000).seq
		slices.Sort(got)
		seen[tc.name] = slices.Compact(got)
		n.Close()
	}
	once := seen["once"]
	if len(once) < 110 || len(once) > 170 {
		t.Errorf("of 200 at a loss of .3 %d came", len(once))
	}
	t.Logf("of 200 at a loss of .3 %d came", len(once))
	for name, want := range map[string]bool{"again": true, "late": true, "other": false} {
		if slices.Equal(seen[name], once) != want {
			t.Errorf("%s: answers %v, once %v; equal: want %v", name, seen[name], once, want)
		}
	}
}

// TestNetsimCut cuts one way, the other, and both, and heals: what a connection
// had to say comes through then.
func TestNetsimCut(t *testing.T) {
	t.Parallel()
	n, a, b := twoHosts(t, 1)
	for _, tc := range []struct {
		name   string
		cut    func()
		ab, ba bool
	}{
		{"none", n.Heal, true, true},
		{"one_way", func() { n.Set(a, b, Rule{Cut: true}) }, false, true},
		{"other_way", func() { n.Heal(); n.Set(b, a, Rule{Cut: true}) }, true, false},
		{"both", func() { n.Both(a, b, Rule{Cut: true}) }, false, false},
		{"healed", n.Heal, true, true},
	} {
		tc.cut()
		before := n.Stats().Cut
		if ab, ba := arrives(t, a, b, tc.ab), arrives(t, b, a, tc.ba); ab != tc.ab || ba != tc.ba {
			t.Errorf("%s: a to b %v, b to a %v, want %v and %v", tc.name, ab, ba, tc.ab, tc.ba)
		}
		if got := n.Stats().Cut > before; got != (!tc.ab || !tc.ba) {
			t.Errorf("%s: packets cut: %v", tc.name, got)
		}
		want := 0
		if tc.ab && tc.ba {
			want = 5
		}
		if got := ping(t, a, b, 5, want, max(want, 1)); len(got.seq) != want {
			t.Errorf("%s: pings answered: %d, want %d", tc.name, len(got.seq), want)
		}
	}

	serve(t, b, "8080", 10)
	n.Both(a, b, Rule{Cut: true})
	before := n.Stats().Cut
	size := make(chan error, 1)
	go func() {
		_, err := get(t, a, "http://"+b.IP+":8080", 30*time.Second)
		size <- err
	}()
	poll(t, 10*time.Second, "the connection is tried", func() string {
		if n.Stats().Cut == before {
			return "no packet"
		}
		return ""
	})
	n.Heal()
	if err := <-size; err != nil {
		t.Errorf("a request that waited for the heal: %v", err)
	}
}

// TestNetsimMatch cuts HTTP and leaves gossip, UDP and TCP, open, then the other
// way round. A host always reaches itself.
func TestNetsimMatch(t *testing.T) {
	t.Parallel()
	n, a, b := twoHosts(t, 1)
	serve(t, b, "8080", 10)
	serve(t, b, "7946", 10)
	for _, tc := range []struct {
		name         string
		rules        []Rule
		http, gossip bool
	}{
		{"none", nil, true, true},
		{"http", []Rule{{Cut: true, Match: tcpPort(8080)}}, false, true},
		{"gossip", []Rule{{Cut: true, Match: udpOnly}, {Cut: true, Match: tcpPort(7946)}}, true, false},
		{"first_rule_counts", []Rule{{Delay: time.Millisecond}, {Cut: true}}, true, true},
		{"all", []Rule{{Cut: true}}, false, false},
		{"large", []Rule{{Cut: true, Match: func(p []byte) bool { return len(p) > 600 }}}, true, true},
	} {
		n.Both(a, b, tc.rules...)
		for port, want := range map[string]bool{"8080": tc.http, "7946": tc.gossip} {
			timeout := 10 * time.Second
			if !want {
				timeout = 300 * time.Millisecond
			}
			if k, err := get(t, a, "http://"+b.IP+":"+port, timeout); (err == nil) != want || want && k != 10 {
				t.Errorf("%s: TCP to %s: %d bytes, %v, want it to pass: %v", tc.name, port, k, err, want)
			}
		}
		if got := arrives(t, a, b, tc.gossip); got != tc.gossip {
			t.Errorf("%s: UDP passes: %v, want %v", tc.name, got, tc.gossip)
		}
		if _, err := get(t, b, "http://"+b.IP+":8080", 10*time.Second); err != nil {
			t.Errorf("%s: a host does not reach itself: %v", tc.name, err)
		}
	}
}

// TestNetsimRun runs commands in a host.
func TestNetsimRun(t *testing.T) {
	t.Parallel()
	_, a, b := twoHosts(t, 1)
	serve(t, b, "8080", 10)
	for _, argv := range [][]string{side(t, "get", "http://"+b.IP+":8080"), {"curl", "-sS", "http://" + b.IP + ":8080"}} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Log(err) // the side program does the same
			continue
		}
		if out, err := a.Run(argv[0], argv[1:]...); err != nil || len(out) != 10 {
			t.Errorf("%v: got %d bytes, %v, want 10", argv, len(out), err)
		}
	}
	if out, err := a.Run("sh", "-c", "echo $$"); err != nil || string(out) != "1\n" {
		t.Errorf("PID inside: got %q, %v, want 1", out, err)
	}
	if out, err := a.Run("sh", "-c", "echo said; echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") || string(out) != "said\n" {
		t.Errorf("a command that fails: got %q, %v", out, err)
	}
	if _, err := a.Dial(t.Context(), "tcp", b.IP+":9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial to a closed port: got %v, want it to be refused", err)
	}
}

// TestNetsimClose shows that Close leaves no process, namespace or device. It is
// not parallel, for it looks at all threads and files of this process.
func TestNetsimClose(t *testing.T) {
	canSwitch(t)
	before := devices(t)
	mark := fmt.Sprintf("100000.%d1", os.Getpid())
	n, a, b := twoHosts(t, 1)
	unawaited, awaited := family(mark), family(mark)
	for h, cmd := range map[*Host]*exec.Cmd{a: unawaited, b: awaited} {
		if err := h.Start(cmd); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- awaited.Wait() }()
	poll(t, 10*time.Second, "two families run", func() string {
		if k := len(living(t, mark)); k < 6 {
			return fmt.Sprintf("%d of 6 processes", k)
		}
		return ""
	})
	var own []string
	for _, h := range []*Host{a, b} {
		h.Do(func() {
			for _, kind := range []string{"net", "mnt"} {
				id, err := os.Readlink("/proc/thread-self/ns/" + kind)
				if err != nil {
					t.Error(err)
				}
				own = append(own, id)
			}
		})
	}
	if got := namespaces(t); len(own) != 4 || !slices.Contains(got, own[0]) || !slices.Contains(got, own[3]) {
		t.Fatalf("namespaces of the hosts %v, all of this process %v", own, got)
	}
	if self, err := os.Readlink("/proc/self/ns/net"); err != nil || slices.Contains(own, self) {
		t.Errorf("the main thread is in a host: %s, %v", self, err)
	}
	if got := devices(t) - before; got != 2 {
		t.Errorf("%d devices, want 2", got)
	}

	begin := time.Now()
	n.Close()
	t.Logf("closed in %v", time.Since(begin))
	n.Close() // once more does no harm
	if pids := living(t, mark); len(pids) > 0 {
		t.Errorf("after Close run %v", pids)
	}
	if err := <-ended; err == nil {
		t.Error("a command that Close killed ended well")
	}
	if got := devices(t) - before; got != 0 {
		t.Errorf("%d devices are left", got)
	}
	poll(t, 10*time.Second, "the threads of the hosts end", func() string {
		for _, ns := range namespaces(t) {
			if slices.Contains(own, ns) {
				return ns + " is still there"
			}
		}
		return ""
	})
	if err := a.Start(exec.Command("true")); err == nil {
		t.Error("a closed host starts a command")
	}
}

// TestNetsimKilled shows that kill -9 of the process leaves nothing that runs.
func TestNetsimKilled(t *testing.T) {
	t.Parallel()
	canSwitch(t)
	mark := fmt.Sprintf("100000.%d2", os.Getpid())
	victim := launch(t, "victim", side(t, "victim", mark)...)
	poll(t, 20*time.Second, "the victim's family runs", func() string {
		if k := len(living(t, mark)); k < 3 || victim.out.String() == "" {
			return fmt.Sprintf("%d of 3 processes; %s", k, victim.log.String())
		}
		return ""
	})
	victim.signal(syscall.SIGKILL)
	victim.wait(downTimeout)
	poll(t, 10*time.Second, "its family ends", func() string { return strings.Join(living(t, mark), " ") })
}

// devices counts the TUN devices of this process.
func devices(t testing.TB) (k int) {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil && to == "/dev/net/tun" {
			k++
		}
	}
	return k
}

// namespaces returns the namespaces, of network and mounts, of all threads.
func namespaces(t testing.TB) (all []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/ns/[nm][en]t")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if id, err := os.Readlink(name); err == nil { // a thread may have ended
			all = append(all, id)
		}
	}
	return all
}
