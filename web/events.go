package web

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// How often a stream says what.
const (
	statusInterval  = time.Second
	jobInterval     = 250 * time.Millisecond
	commentInterval = 15 * time.Second
	maxWatched      = 64 // jobs of one stream
	maxProgress     = 64 // leased jobs of one progress event
)

// hub makes the status snapshot once for all connections, and of it one event for
// each that may see the same. Its loop runs only while somebody looks.
type hub struct {
	s *Server

	mu      sync.Mutex // guards what follows
	viewers map[chan []byte]viewer
	running bool
	last    map[viewer][]byte // the newest snapshots while running, by whom they are for
}

func (h *hub) init(s *Server) { h.s, h.viewers = s, map[chan []byte]viewer{} }

// join adds a viewer. Its channel holds one snapshot, the newest: a slow viewer
// misses some and delays nobody.
func (h *hub) join(view viewer) chan []byte {
	c := make(chan []byte, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.viewers[c] = view
	if last := h.last[view]; last != nil {
		c <- last
	}
	if !h.running {
		h.running = true
		go h.run()
	}
	return c
}

func (h *hub) leave(c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, c)
}

// views returns for whom snapshots are made.
func (h *hub) views() map[viewer][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	views := map[viewer][]byte{}
	for _, view := range h.viewers {
		views[view] = nil
	}
	return views
}

// run polls until nobody looks any more.
func (h *hub) run() {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		events := h.poll(h.views())
		h.mu.Lock()
		if len(h.viewers) == 0 {
			h.running, h.last = false, nil
			h.mu.Unlock()
			return
		}
		if events != nil {
			h.last = events
			for c, view := range h.viewers {
				event := events[view]
				if event == nil {
					continue // it came while this was made
				}
				select {
				case <-c: // the one it has not taken is old now
				default:
				}
				c <- event
			}
		}
		h.mu.Unlock()
		select {
		case <-tick.C:
		case <-h.s.ending.Done(): // the viewers end as well
			h.mu.Lock()
			h.running, h.last = false, nil
			h.mu.Unlock()
			return
		}
	}
}

// poll fills in the events of each view, and returns nil if there is no status
// to be had.
func (h *hub) poll(views map[viewer][]byte) (events map[viewer][]byte) {
	defer func() {
		if p := recover(); p != nil {
			h.s.log.Error("panic in the status", "panic", p, "stack", string(debug.Stack()))
			events = nil
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), streamTimeout)
	defer cancel()
	st, err := h.s.snapshot(ctx)
	if err != nil {
		h.s.log.Warn("no status for the event streams", "err", err)
		return nil
	}
	progress := h.progress(ctx, views)
	for view := range views {
		views[view] = append(event(api.EventStatus, h.s.shown(view, st)), progress[view]...)
	}
	return views
}

// maxLooked bounds the leased jobs that are looked at for those of one owner.
const maxLooked = 1024

// progress returns for each view the event with how far the leased jobs of this
// node are, up to maxProgress of them, nothing if that is not to be had.
func (h *hub) progress(ctx context.Context, views map[viewer][]byte) map[viewer][]byte {
	limit := maxProgress
	for view := range views {
		if view.view != "" {
			limit = maxLooked
		}
	}
	page, err := h.s.cfg.Reader.Jobs(ctx, jobs.ListQuery{State: jobs.StateLeased, Limit: limit})
	if err != nil {
		h.s.log.Warn("no progress for the event streams", "err", err)
		return nil
	}
	events := map[viewer][]byte{}
	for view := range views {
		list := api.Progress{Jobs: []api.JobProgress{}, More: page.More}
		for _, v := range page.Jobs {
			switch {
			case view.view != "" && v.Owner != view.view:
			case len(list.Jobs) == maxProgress:
				list.More = true
			default:
				list.Jobs = append(list.Jobs, api.JobProgress{ID: v.ID.String(), Iterations: v.Iterations, Done: v.Done, Rate: v.Rate, ETASeconds: v.ETA().Seconds(), Worker: v.Worker})
			}
		}
		events[view] = event(api.EventProgress, list)
	}
	return events
}

// event returns one server-sent event with v as JSON.
func event(name string, v any) []byte {
	data, err := encode(v)
	if err != nil {
		return nil // a number that JSON cannot say; the next snapshot may do
	}
	b := make([]byte, 0, len(data)+len(name)+16)
	b = append(b, "event: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	b = append(b, bytes.TrimRight(data, "\n")...)
	return append(b, "\n\n"...)
}

// watched is one job of a stream and the event sent last for it.
type watched struct {
	id   jobs.ID
	last []byte
}

// eventStream answers GET /v1/events: the status and the progress of leased jobs
// each second, with ?job= a job whenever it has changed, and to operators each
// decision of the scheduler. Every event is whole, so a viewer that comes back has
// missed nothing that counts.
func (s *Server) eventStream(w http.ResponseWriter, r *http.Request) error {
	if s.stopping() {
		return errStopping()
	}
	jobsWatched, err := watchedJobs(r)
	if err != nil {
		return err
	}
	release, err := s.hold(r.Context(), placeWait, 1+len(jobsWatched))
	if err != nil {
		return err
	}
	defer release()

	rc := controller(w)
	_ = rc.SetReadDeadline(time.Time{}) // the stream outlasts the server's timeout
	h := w.Header()
	h["Content-Type"] = headerEvents
	h["Cache-Control"] = headerNoStore
	h["X-Accel-Buffering"] = headerNoBuffer
	send := func(b []byte) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(streamTimeout)) // not supported in tests without a connection
		if _, err := w.Write(b); err != nil {
			return false
		}
		err := rc.Flush()
		return err == nil || errors.Is(err, http.ErrNotSupported)
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if !send(append([]byte(": workmanager events\n\n"), event(api.EventYou, s.you(r))...)) {
		return nil
	}

	snapshots := s.events.join(viewerOf(r.Context()))
	defer s.events.leave(snapshots)
	comment := time.NewTicker(commentInterval)
	defer comment.Stop()
	told, decided := decisionsOf(s, r), (<-chan struct{})(nil)
	if told != nil {
		decided = told.wait()
		if b := told.news(r.Context()); len(b) > 0 && !send(b) {
			return nil
		}
	}
	var jobTick <-chan time.Time
	if len(jobsWatched) > 0 {
		t := time.NewTicker(jobInterval)
		defer t.Stop()
		jobTick = t.C
		if b := s.changed(r.Context(), jobsWatched); len(b) > 0 && !send(b) {
			return nil
		}
	}
	for {
		var b []byte
		select {
		case <-r.Context().Done():
			return nil
		case <-s.ending.Done():
			return nil
		case b = <-snapshots:
		case <-jobTick:
			b = s.changed(r.Context(), jobsWatched)
		case <-decided:
			decided = told.wait() // first, so that none comes unseen
			b = told.news(r.Context())
		case <-comment.C:
			b = []byte(": still here\n\n")
		}
		if len(b) > 0 && (!s.admitted(r) || !send(b)) {
			return nil
		}
	}
}

// you says who reads the events, so that a page can leave out what it may not do.
func (s *Server) you(r *http.Request) api.You {
	c, asked := CallerOf(r.Context())
	if !asked {
		return api.You{Role: roleWord(Operator)}
	}
	return api.You{Role: roleWord(c.Role), Name: c.Name, Tokens: true}
}

// changed returns the events of the jobs that differ from what was sent last.
func (s *Server) changed(ctx context.Context, list []watched) []byte {
	var out []byte
	for i := range list {
		j := &list[i]
		var e []byte
		switch v, err := s.cfg.Reader.Job(ctx, j.id, 0); {
		case err == nil:
			e = event(api.EventJob, jobOf(v))
		case jobs.CodeOf(err) == jobs.CodeNotFound:
			e = event(api.EventGone, api.Gone{ID: j.id.String()})
		default:
			continue // the next look may tell
		}
		if !bytes.Equal(e, j.last) {
			j.last = e
			out = append(out, e...)
		}
	}
	return out
}

// watchedJobs reads every ?job=, each job once.
func watchedJobs(r *http.Request) ([]watched, error) {
	var list []watched
	seen := map[jobs.ID]bool{}
	for _, v := range r.URL.Query()["job"] {
		id, err := jobs.ParseID(v)
		if err != nil {
			return nil, jobs.Invalid("query", "job", "value_error.uuid", "%q is no job ID", clip(v))
		}
		if !seen[id] {
			seen[id] = true
			list = append(list, watched{id: id})
		}
	}
	if len(list) > maxWatched {
		return nil, jobs.Invalid("query", "job", "value_error.length", "%d jobs are asked for, a stream watches at most %d", len(list), maxWatched)
	}
	return list, nil
}
