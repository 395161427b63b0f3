package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// debugServer serves profiles of this process. It asks nobody who he is, so it
// listens on loopback only, and on an address of its own: no route of the API
// leads here.
type debugServer struct {
	listener net.Listener
	server   *http.Server
}

// checkDebug refuses to show profiles to other machines.
func (c Config) checkDebug() error {
	if c.DebugListen == "" {
		return nil
	}
	if err := checkAddr("debug-listen", c.DebugListen, 0); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(c.DebugListen) // checked above
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("--debug-listen must be an address of loopback, such as 127.0.0.1:6060: %q given; from elsewhere use ssh -L", c.DebugListen)
	}
	return nil
}

// newDebug opens the listener, nil for addr "".
func newDebug(addr string) (*debugServer, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for profiles: %w", addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &debugServer{listener: l, server: &http.Server{Handler: sameHost(mux), ReadHeaderTimeout: 10 * time.Second}}, nil
}

// sameHost refuses requests that a page in a browser sends here under a name of
// its own.
func sameHost(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "profiles are for loopback", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// run serves until close. d may be nil.
func (d *debugServer) run() error {
	if d == nil {
		return nil
	}
	if err := d.server.Serve(d.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve profiles: %w", err)
	}
	return nil
}

func (d *debugServer) close() {
	if d != nil {
		_ = d.server.Close() // a profile that is being taken had its time
	}
}
