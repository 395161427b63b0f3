package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what came out into the golden files of the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"workmanager": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop)
		os.Exit(Main(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
	}, "terminal": terminal})
}

// TestScript runs testdata/script/*.txtar against real processes. Beside the
// usual ones there are these commands:
//
//	exits CODE PROGRAM ARG...  runs a program that must exit with the code
//	ready                      waits until a node answers at $WORKMANAGER_NODE
//	keep NAME                  makes the last stdout the variable NAME
//	json FILE [PATH...]        FILE is one JSON document that has these fields
//	jsonl FILE COUNT [PATH...] FILE is that many, one a line
//	await FILE TEXT            waits until the file holds the text
//	untilok PROGRAM ARG...     runs a program until it exits with 0
//	untilnot PROGRAM ARG...    runs a program until it does not
//
// The program terminal runs another one on a terminal of its own.
//
// $WORKMANAGER_NODE is an address of the script's own where nobody listens yet,
// and $DEAD another where nobody ever will.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"WORKMANAGER_NODE", "DEAD"} {
				addr, free, err := ownAddr()
				if err != nil {
					return err
				}
				e.Defer(free)
				e.Setenv(name, addr)
			}
			e.Setenv("VALUE5", "5ab743e5b9704b2ae1584c7b768aba17d98388c1cb56b7c7240a0636157e21251ecb636baff93da58db7ea849c1f8717649a6963162ee8fe66fc9b391a2aa94c")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"ready": func(ts *testscript.TestScript, _ bool, _ []string) {
				poll(ts, func() error {
					resp, err := http.Get("http://" + ts.Getenv("WORKMANAGER_NODE") + "/readyz")
					if err != nil {
						return err
					}
					defer resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						return errors.New(resp.Status)
					}
					return nil
				})
			},
			"untilok": func(ts *testscript.TestScript, _ bool, args []string) {
				poll(ts, func() error { return ts.Exec(args[0], args[1:]...) })
			},
			"untilnot": func(ts *testscript.TestScript, _ bool, args []string) {
				poll(ts, func() error {
					if err := ts.Exec(args[0], args[1:]...); err == nil {
						return errors.New("it exits with 0")
					}
					return nil
				})
			},
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			"json": func(ts *testscript.TestScript, _ bool, args []string) {
				checkJSON(ts, ts.ReadFile(args[0]), args[1:])
			},
			"jsonl": func(ts *testscript.TestScript, _ bool, args []string) {
				lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
				if strconv.Itoa(len(lines)) != args[1] {
					ts.Fatalf("%d lines, want %s", len(lines), args[1])
				}
				for _, line := range lines {
					checkJSON(ts, line, args[2:])
				}
			},
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				poll(ts, func() error {
					b, err := os.ReadFile(ts.MkAbs(args[0]))
					if err == nil && !strings.Contains(string(b), args[1]) {
						err = fmt.Errorf("%s holds %q, not %q", args[0], b, args[1])
					}
					return err
				})
			},
		},
	})
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("%s exited with %d, want %s", strings.Join(args[1:], " "), got, want)
	}
}

// ownAddr returns an address that nobody listens at, and nobody is given who asks
// for any, until free is called: it is bound. Who asks for it by name may listen.
func ownAddr() (addr string, free func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return "", nil, err
	}
	syscall.CloseOnExec(fd)
	free = func() { _ = syscall.Close(fd) } // it was never used
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var at syscall.Sockaddr
	if err == nil {
		at, err = syscall.Getsockname(fd)
	}
	if err != nil {
		free()
		return "", nil, err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(at.(*syscall.SockaddrInet4).Port)), free, nil
}

// poll tries f until it returns nil, for at most 90 s.
func poll(ts *testscript.TestScript, f func() error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(90 * time.Second)
	for err := f(); err != nil; err = f() {
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("not within 90 s: %v", err)
		}
	}
}

// checkJSON holds that text is JSON and that every path, such as jobs.0.id,
// leads somewhere in it. PATH=TEXT also says what is there.
func checkJSON(ts *testscript.TestScript, text string, paths []string) {
	var doc any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		ts.Fatalf("no JSON: %v\n%s", err, text)
	}
	if d.More() {
		ts.Fatalf("more than one document:\n%s", text)
	}
	for _, path := range paths {
		path, want, hasWant := strings.Cut(path, "=")
		at := doc
		for name := range strings.SplitSeq(path, ".") {
			var ok bool
			switch here := at.(type) {
			case map[string]any:
				at, ok = here[name]
			case []any:
				i, err := strconv.Atoi(name)
				if ok = err == nil && i < len(here); ok {
					at = here[i]
				}
			}
			if !ok {
				ts.Fatalf("no %s in\n%s", path, text)
			}
		}
		if got := fmt.Sprint(at); hasWant && got != want {
			ts.Fatalf("%s is %q, want %q", path, got, want)
		}
	}
}
