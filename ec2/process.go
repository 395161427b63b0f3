package ec2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ProcessPrefix is what the names of processes begin with.
const ProcessPrefix = "p-"

// processShown is how long a process that has ended is shown.
const processShown = time.Hour

// ProcessConfig says how a worker is started as a process.
type ProcessConfig struct {
	// Command is the program and its arguments; {name} in them becomes the name
	// of the instance, which the worker must take as its own.
	Command []string
	// Env returns the whole environment of a process by its name; nil: that of
	// this one. It is no place for other users to look, unlike the arguments.
	Env    func(name string) []string
	Output io.Writer
	// Keep is given what to remember of the processes that run, at every change,
	// and Kept is what it was given last: processes that have outlived the one
	// that started them are then found again.
	Keep func([]byte) error
	Kept []byte
	// StopTime is how long a process may take to end when it is asked to.
	StopTime time.Duration // 0: five seconds
	Now      func() time.Time
	Log      *slog.Logger
}

// Processes is the Cloud of this machine: its instances are processes. Tokens
// count as with EC2, as long as the process lives. It is safe for concurrent use.
type Processes struct {
	cfg ProcessConfig

	mu      sync.Mutex // guards the rest
	list    []*process
	tokens  map[string]*process
	closing bool
	next    int
	waiting sync.WaitGroup
}

type process struct {
	Instance
	pid     int
	token   string
	found   bool // another process started it
	stopped bool // was asked to end
	endedAt time.Time
	done    chan struct{} // closed when it has ended
}

// NewProcesses returns a Cloud that has started nothing. Close ends what it starts.
func NewProcesses(cfg ProcessConfig) (*Processes, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("a fleet of processes needs the command of a worker")
	}
	if cfg.StopTime <= 0 {
		cfg.StopTime = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Processes{cfg: cfg, tokens: map[string]*process{}}
	return p, p.find()
}

// Instances returns the processes that run or have ended lately. See Cloud.
func (p *Processes) Instances(ctx context.Context) ([]Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.look(now)
	p.list = slices.DeleteFunc(p.list, func(x *process) bool {
		return x.State == Terminated && now.Sub(x.endedAt) > processShown
	})
	var out []Instance
	for _, x := range p.list {
		out = append(out, x.Instance)
	}
	return out, ctx.Err()
}

// Launch starts a process. See Cloud.
func (p *Processes) Launch(_ context.Context, r Request) (Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.tokens[r.Token]; x != nil {
		return x.Instance, nil
	}
	if p.closing {
		return Instance{}, &Refusal{Kind: Wrong, Code: "Closing", Text: "this process ends"}
	}
	p.next++
	name := fmt.Sprintf(ProcessPrefix+"%d-%d-%d", os.Getpid(), r.Slot.Slot, p.next)
	args := make([]string, len(p.cfg.Command))
	for i, a := range p.cfg.Command {
		args[i] = strings.ReplaceAll(a, "{name}", name)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if p.cfg.Env != nil {
		cmd.Env = p.cfg.Env(name)
	}
	cmd.Stdout, cmd.Stderr = p.cfg.Output, p.cfg.Output
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return Instance{}, &Refusal{Kind: Wrong, Code: "NotStarted", Text: err.Error()}
	}
	x := &process{pid: cmd.Process.Pid, token: r.Token, done: make(chan struct{}), Instance: Instance{
		ID: name, State: Running, Offer: r.Offer, Slot: r.Slot.Slot, Gen: r.Gen, LaunchedAt: p.cfg.Now(), Address: "pid " + strconv.Itoa(cmd.Process.Pid),
	}}
	p.list, p.tokens[r.Token] = append(p.list, x), x
	p.keep()
	p.waiting.Go(func() {
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended(x, err)
		p.keep()
	})
	return x.Instance, nil
}

// Terminate asks processes to end, and makes those that do not. It does not
// wait. See Cloud.
func (p *Processes) Terminate(_ context.Context, ids []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, id := range ids {
		i := slices.IndexFunc(p.list, func(x *process) bool { return x.ID == id })
		if i < 0 {
			errs = append(errs, fmt.Errorf("process %s is not known", id))
			continue
		}
		p.stop(p.list[i])
	}
	return errors.Join(errs...)
}

// stop is called with mu held.
func (p *Processes) stop(x *process) {
	if x.stopped || x.State == Terminated {
		return
	}
	x.stopped = true
	if err := interrupt(x.pid); err != nil {
		p.cfg.Log.Warn("process not asked to end, it is killed", "instance", x.ID, "err", err)
		kill(x.pid)
		return
	}
	p.waiting.Go(func() {
		if !p.endsIn(x, p.cfg.StopTime) {
			p.cfg.Log.Warn("process does not end, it is killed", "instance", x.ID)
			kill(x.pid)
			p.endsIn(x, p.cfg.StopTime)
		}
	})
}

// ended notes that a process has ended. mu is held.
func (p *Processes) ended(x *process, err error) {
	x.State, x.endedAt, x.Reason = Terminated, p.cfg.Now(), "it ended by itself"
	switch {
	case x.stopped:
		x.Reason = "it was asked to end"
	case err != nil:
		x.Reason = err.Error()
	}
	close(x.done)
}

// Close ends all processes and waits for that, for no longer than StopTime and
// what the system takes to kill.
func (p *Processes) Close() error {
	p.mu.Lock()
	p.closing = true
	for _, x := range p.list {
		p.stop(x)
	}
	p.mu.Unlock()
	p.waiting.Wait()
	return nil
}
