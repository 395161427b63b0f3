package e2e

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// runTimeout bounds a command that Run awaits, and queueTime what a link of
// limited rate holds back: it drops what would wait longer.
const (
	runTimeout = time.Minute
	queueTime  = 400 * time.Millisecond
)

// Net is a network of hosts, each a network namespace without a name whose one
// interface is a TUN device; the switch between them is this process. It takes
// root and is safe for concurrent use.
type Net struct {
	t       testing.TB
	closing sync.Once
	wake    chan struct{} // holds one: the first delayed packet is another one
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	rng     *rand.Rand
	hosts   map[[4]byte]*Host
	links   map[link][]*limited
	delayed delayed
	pushed  uint64
	stats   Stats
}

// Stats counts packets since the start. Those in no field had no IPv4 header.
type Stats struct {
	Forwarded, Cut, Lost, Full, Dup, Corrupt, Reordered int
	Unknown                                             int // to no host of this network
}

// link is one direction between two hosts.
type link struct{ from, to *Host }

// limited is a rule with the instant until which its link is busy.
type limited struct {
	Rule
	busy time.Time
}

// Rule says what befalls the packets of one direction. Lost, duplicated,
// corrupted and reordered are independent of each other, each a probability.
type Rule struct {
	Cut                         bool
	Loss, Dup, Corrupt, Reorder float64
	Delay                       time.Duration
	Jitter                      time.Duration         // up to this much more, evenly: it reorders as well
	ReorderBy                   time.Duration         // what a reordered packet waits longer; 0 is 10 ms
	RateBps                     int64                 // bytes a second; 0 is no limit
	Match                       func(pkt []byte) bool // nil is every packet; it must not keep pkt
}

// String names what is set.
func (r Rule) String() string {
	var b strings.Builder
	say := func(set bool, format string, args ...any) {
		if set {
			fmt.Fprintf(&b, format+" ", args...)
		}
	}
	say(r.Cut, "cut")
	say(r.Loss > 0, "loss %v", r.Loss)
	say(r.Dup > 0, "dup %v", r.Dup)
	say(r.Corrupt > 0, "corrupt %v", r.Corrupt)
	say(r.Reorder > 0, "reorder %v by %v", r.Reorder, r.ReorderBy)
	say(r.Delay+r.Jitter > 0, "delay %v + %v", r.Delay, r.Jitter)
	say(r.RateBps > 0, "%d bytes/s", r.RateBps)
	say(r.Match != nil, "of some packets")
	return strings.TrimSpace(b.String())
}

// udpOnly matches UDP.
func udpOnly(p []byte) bool { return p[9] == syscall.IPPROTO_UDP }

// tcpPort matches TCP from or to a port.
func tcpPort(port uint16) func(p []byte) bool {
	return func(p []byte) bool {
		at := int(p[0]&15) * 4
		hi, lo := byte(port>>8), byte(port)
		return p[9] == syscall.IPPROTO_TCP && len(p) >= at+4 &&
			(p[at] == hi && p[at+1] == lo || p[at+2] == hi && p[at+3] == lo)
	}
}

// canSwitch skips the test where there can be no switch.
func canSwitch(t *testing.T) {
	t.Helper()
	need(t, true, "ip")
	if err := probeSwitch(); err != nil {
		skip(t, "no network of its own can be had: %v", err)
	}
}

var probeSwitch = sync.OnceValue(func() error {
	up := make(chan error, 1)
	onThread(func() {
		err := unshare()
		if err == nil {
			var tun *os.File
			if tun, err = openTUN(); err == nil {
				err = tun.Close()
			}
		}
		up <- err
	})
	return <-up
})

// newNet returns a network without hosts that ends with the test, or skips the
// test. The same seed gives the same fate to the same sequence of packets.
func newNet(t *testing.T, seed uint64) *Net {
	t.Helper()
	canSwitch(t)
	return startNet(t, seed)
}

func startNet(t testing.TB, seed uint64) *Net {
	n := &Net{
		t: t, wake: make(chan struct{}, 1), done: make(chan struct{}),
		rng: rand.New(rand.NewPCG(seed, 0)), hosts: map[[4]byte]*Host{}, links: map[link][]*limited{},
	}
	t.Logf("network: seed %d", seed)
	n.running.Go(n.deliver)
	t.Cleanup(n.Close)
	return n
}

// Set gives packets from a to b these rules in place of those before; the first
// that matches counts, and without one a packet is forwarded at once. What a
// rule delays already is not called back.
func (n *Net) Set(a, b *Host, rules ...Rule) {
	n.t.Helper()
	n.t.Logf("network: %s to %s: %v", a.IP, b.IP, rules)
	var list []*limited
	for _, r := range rules {
		if r.ReorderBy == 0 {
			r.ReorderBy = 10 * time.Millisecond
		}
		list = append(list, &limited{Rule: r})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[link{a, b}] = list
}

// Both is Set in both directions; neither slows the other.
func (n *Net) Both(a, b *Host, rules ...Rule) {
	n.t.Helper()
	n.Set(a, b, rules...)
	n.Set(b, a, rules...)
}

// Heal removes all rules.
func (n *Net) Heal() {
	n.t.Helper()
	n.t.Log("network: healed")
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
}

// Stats returns the counts so far.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Close kills what runs in the hosts and ends them. It is called by the test's
// cleanup, may be called before, and returns when all is gone.
func (n *Net) Close() {
	n.closing.Do(func() {
		n.mu.Lock()
		hosts := slices.Collect(maps.Values(n.hosts))
		n.mu.Unlock()
		for _, h := range hosts {
			h.killAll()
		}
		close(n.done)
		for _, h := range hosts {
			_ = h.tun.Close() // ends its reader; nothing was written that could be lost
			<-h.gone
		}
		n.running.Wait()
	})
}

// forward sends one packet of a host on its way. It keeps nothing of p.
func (n *Net) forward(from *Host, p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	n.mu.Lock()
	to := n.hosts[[4]byte(p[16:20])]
	rules := n.links[link{from, to}]
	n.mu.Unlock()
	i := slices.IndexFunc(rules, func(r *limited) bool { return r.Match == nil || r.Match(p) })
	n.mu.Lock()
	atOnce := true
	switch {
	case to == nil:
		n.stats.Unknown++
		atOnce = false
	case i >= 0:
		atOnce = n.apply(rules[i], to, p)
	default:
		n.stats.Forwarded++
	}
	n.mu.Unlock()
	if atOnce {
		to.write(p)
	}
}

// apply does to a packet what a rule says and tells whether it is to be written
// at once: if not, it is dropped or in the queue. It is called under the lock.
func (n *Net) apply(r *limited, to *Host, p []byte) (atOnce bool) {
	if r.Cut {
		n.stats.Cut++
		return false
	}
	// Every packet draws all of them: another probability does not shift the others.
	lost, dup, corrupt, where, reorder, jitter := n.rng.Float64(), n.rng.Float64(), n.rng.Float64(),
		n.rng.Float64(), n.rng.Float64(), n.rng.Float64()
	if lost < r.Loss {
		n.stats.Lost++
		return false
	}
	if corrupt < r.Corrupt {
		n.stats.Corrupt++
		bit := int(where * float64(len(p)*8))
		p[bit/8] ^= 1 << (bit % 8)
	}
	now := time.Now()
	due := now
	if r.RateBps > 0 {
		if r.busy.Before(now) {
			r.busy = now
		}
		if r.busy.Sub(now) > queueTime {
			n.stats.Full++
			return false
		}
		r.busy = r.busy.Add(time.Duration(int64(len(p)) * int64(time.Second) / r.RateBps))
		due = r.busy
	}
	due = due.Add(r.Delay + time.Duration(jitter*float64(r.Jitter)))
	if reorder < r.Reorder {
		n.stats.Reordered++
		due = due.Add(r.ReorderBy)
	}
	n.stats.Forwarded++
	if atOnce = !due.After(now); !atOnce {
		n.push(due, to, p)
	}
	if dup < r.Dup {
		n.stats.Dup++
		n.push(due.Add(time.Millisecond), to, p)
	}
	return atOnce
}

// push delays a copy of a packet. It is called under the lock.
func (n *Net) push(due time.Time, to *Host, p []byte) {
	n.pushed++
	heap.Push(&n.delayed, packet{due, n.pushed, to, bytes.Clone(p)})
	if n.delayed[0].number == n.pushed {
		select {
		case n.wake <- struct{}{}:
		default: // woken already
		}
	}
}

// deliver writes delayed packets when they are due, until Close.
func (n *Net) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		var due []packet
		n.mu.Lock()
		for now := time.Now(); len(n.delayed) > 0; {
			if wait = n.delayed[0].due.Sub(now); wait > 0 {
				break
			}
			due = append(due, heap.Pop(&n.delayed).(packet))
			wait = time.Hour
		}
		n.mu.Unlock()
		for _, p := range due {
			p.to.write(p.data)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-n.wake:
		case <-n.done:
			return
		}
	}
}

// packet is a delayed packet; delayed is a heap of them, the first due on top.
type packet struct {
	due    time.Time
	number uint64 // keeps those of one instant in order
	to     *Host
	data   []byte
}

type delayed []packet

func (d delayed) Len() int      { return len(d) }
func (d delayed) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *delayed) Push(x any)   { *d = append(*d, x.(packet)) }
func (d delayed) Less(i, j int) bool {
	if c := d[i].due.Compare(d[j].due); c != 0 {
		return c < 0
	}
	return d[i].number < d[j].number
}

func (d *delayed) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	(*d)[last] = packet{} // the array is not to hold its data
	*d = (*d)[:last]
	return p
}

// Host is a machine of the network: a thread of this process in namespaces of
// its own, network and mounts. Its loopback and its own IP never cross the
// switch, so what runs on it is reached from it whatever the rules are.
type Host struct {
	IP   string
	net  *Net
	tun  *os.File
	do   chan func()
	gone chan struct{} // closed when its goroutine has ended

	started []*os.Process // only for the host's goroutine
}

// Host adds a host to the network. All are in one /24.
func (n *Net) Host(ip string) *Host {
	n.t.Helper()
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is4() {
		n.t.Fatalf("host %s: not an IPv4 address", ip)
	}
	h := &Host{IP: ip, net: n, do: make(chan func()), gone: make(chan struct{})}
	up := make(chan error, 1)
	onThread(func() {
		defer close(h.gone)
		err := h.up()
		up <- err
		for err == nil { // the thread must outlive its children: they die with it
			select {
			case f := <-h.do:
				f()
			case <-n.done:
				return
			}
		}
	})
	if err := <-up; err != nil {
		n.t.Fatalf("host %s: %v", ip, err)
	}
	n.mu.Lock()
	taken := n.hosts[addr.As4()] != nil
	if !taken {
		n.hosts[addr.As4()] = h
	}
	n.mu.Unlock()
	if taken {
		_ = h.tun.Close() // nobody has used it
		n.t.Fatalf("host %s: there is one already", ip)
	}
	n.running.Go(h.read)
	return h
}

// up makes the host of the calling thread. The order matters.
func (h *Host) up() error {
	err := unshare()
	if err != nil {
		return err
	}
	if h.tun, err = openTUN(); err != nil {
		return err
	}
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader("link set lo up\naddr add " + h.IP + "/24 dev eth0\nlink set eth0 up txqueuelen 2000\n")
	if out, err := ip.CombinedOutput(); err != nil {
		_ = h.tun.Close() // the other error counts
		return fmt.Errorf("set up eth0: %w: %s", err, out)
	}
	return nil
}

// read takes the host's packets until its device is closed.
func (h *Host) read() {
	buf := make([]byte, 64<<10)
	for {
		k, err := h.tun.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			h.net.t.Errorf("host %s: read a packet: %v", h.IP, err)
			return
		}
		h.net.forward(h, buf[:k])
	}
}

// write hands the host a packet. One that it does not take is lost, as on a wire.
func (h *Host) write(p []byte) { _, _ = h.tun.Write(p) }

// Do runs f in the host's namespaces and waits for it; it panics if the network
// is closed. A socket that f opens (net.Listen, net.ListenPacket) stays in the
// host wherever it is used afterwards, and keeps the namespace alive until it is
// closed. f must not dial, which the net package may do on another thread: that
// is what Dial is for. Nor may it end the test; and a mount that it makes is
// gone with the host.
func (h *Host) Do(f func()) {
	if !h.try(f) {
		panic("netsim: host " + h.IP + " is closed")
	}
}

// try is Do that says whether f was run.
func (h *Host) try(f func()) bool {
	done := make(chan struct{})
	select {
	case h.do <- func() { defer close(done); f() }:
		<-done
		return true
	case <-h.gone:
		return false
	}
}

// Start starts a command in the host; the caller waits for it. It dies with this
// process, however that ends, and at Close, and all its children with it: it is
// the first process of a PID namespace. So it is deaf to signals that it does
// not catch, but for SIGKILL and SIGSTOP, and its PID to itself is 1, while
// cmd.Process and /proc have the one seen from here.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	var err error
	if !h.try(func() {
		if err = cmd.Start(); err == nil {
			h.started = append(h.started, cmd.Process)
		}
	}) {
		return fmt.Errorf("start %v: host %s is closed", cmd.Args, h.IP)
	}
	return err
}

// Run runs a command in the host to its end and returns its stdout; an error
// tells its stderr.
func (h *Host) Run(name string, args ...string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = h.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("host %s: %v: %w: %s", h.IP, cmd.Args, err, &stderr)
	}
	return stdout.Bytes(), err
}

// Dial connects this process from the host to a TCP address of literal numbers.
// It is the DialContext of an http.Transport.
func (h *Host) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() {
		return nil, fmt.Errorf("dial %s from host %s: not an IPv4 address and port", addr, h.IP)
	}
	var fd int
	h.Do(func() { // a socket belongs to the namespace in which it was made
		fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	})
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close() // FileConn has one of its own
	if err == nil || errors.Is(err, syscall.EINPROGRESS) {
		err = connected(ctx, f)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s from host %s: %w", addr, h.IP, err)
	}
	conn, err := net.FileConn(f)
	if err == nil {
		err = conn.(*net.TCPConn).SetNoDelay(true)
	}
	return conn, err
}

// connected waits until a socket is connected.
func connected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })() // closed already: nobody waits
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		code, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		if failed = err; err == nil && code != 0 {
			failed = os.NewSyscallError("connect", syscall.Errno(code))
		}
		_, err = syscall.Getpeername(int(fd))
		return failed != nil || !errors.Is(err, syscall.ENOTCONN)
	})
	return errors.Join(ctx.Err(), err, failed)
}

// killAll ends what was started and waits for it. Who waits as well learns
// either that it was killed or that it is gone.
func (h *Host) killAll() {
	var started []*os.Process
	h.try(func() { started = h.started })
	for _, p := range started {
		_ = p.Kill() // most have ended
	}
	for _, p := range started {
		_, _ = p.Wait() // likewise
	}
}

// onThread runs f on a thread that ends with f, and its namespaces with it:
// the goroutine stays locked to it to its end.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() != syscall.Getpid() {
			f()
			return
		}
		// The main thread never ends, and /proc/self shows its namespaces: f gets
		// another one while this one is held.
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			f()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
	}()
}

// unshare gives the calling thread a network and mounts of its own.
func unshare() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("mount", syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
}

// openTUN makes eth0 in the namespace of the calling thread. It is a file only
// when it is a device: the poller takes it then, and Close ends a Read.
func openTUN() (*os.File, error) {
	const name = "/dev/net/tun"
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	req := struct { // ifreq
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_TUN | syscall.IFF_NO_PI}
	copy(req.name[:], "eth0")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
		_ = syscall.Close(fd) // the other error counts
		return nil, os.NewSyscallError("TUNSETIFF", errno)
	}
	return os.NewFile(uintptr(fd), name), nil
}
