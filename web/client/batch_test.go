package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
	"workmanager/web/client"
)

// batchNode keeps the keys it has accepted, as a store would. Each request
// may be cut after so many answers.
type batchNode struct {
	mu       sync.Mutex // guards all below
	accepted map[string]int
	order    []string
	requests int
	cutAfter func(request int) int // 0: never
}

func (b *batchNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err)
	}
	b.mu.Lock()
	b.requests++
	cut := b.cutAfter(b.requests)
	b.mu.Unlock()
	w.Header().Set("Content-Type", api.MediaNDJSON)
	in, out := bufio.NewReader(r.Body), json.NewEncoder(w)
	for n := int64(1); ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var s api.SubmitJob
		if err := json.Unmarshal(line, &s); err != nil || s.Data == nil || s.Key == "" {
			panic(fmt.Sprintf("line %q: %v", line, err))
		}
		b.mu.Lock()
		b.accepted[s.Key]++
		existed := b.accepted[s.Key] > 1
		if !existed {
			b.order = append(b.order, s.Key)
		}
		b.mu.Unlock()
		if cut > 0 && n > int64(cut) {
			panic(http.ErrAbortHandler) // accepted, and the answer is lost
		}
		a := api.BatchLine{Line: n, ID: testID, State: "queued", Durability: "local", Existed: existed}
		if s.Iterations == 0 {
			a = api.BatchLine{Line: n, Error: &api.Problem{Status: 422, Code: "invalid", Detail: "iterations: 0 is not from 1"}}
		}
		if err := out.Encode(a); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

func submissions(n int) iter.Seq[client.Submission] {
	return func(yield func(client.Submission) bool) {
		for i := range n {
			if !yield(client.Submission{Data: fmt.Append(nil, i), Iterations: uint64(i + 1)}) {
				return
			}
		}
	}
}

func newBatchNode(t *testing.T, cutAfter func(int) int) (*batchNode, string) {
	b := &batchNode{accepted: map[string]int{}, cutAfter: cutAfter}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	return b, s.URL
}

func never(int) int { return 0 }

func TestBatch(t *testing.T) {
	t.Run("answers_come_while_jobs_are_still_sent", func(t *testing.T) {
		_, url := newBatchNode(t, never)
		c := &client.Client{URLs: []string{url}}
		defer c.Close()
		answered := make(chan struct{})
		// Each job is given out only when the one before it was answered.
		lines := func(yield func(client.Submission) bool) {
			for s := range submissions(50) {
				if !yield(s) {
					return
				}
				select {
				case <-answered:
				case <-t.Context().Done():
					return
				}
			}
		}
		n := int64(0)
		for s, err := range c.Batch(t.Context(), lines, jobs.AckDefault) {
			n++
			if err != nil || s.Err != nil || s.Line != n || s.ID.String() != testID || s.State != jobs.StateQueued {
				t.Fatalf("answer %d = %+v, %v", n, s, err)
			}
			answered <- struct{}{}
		}
		if n != 50 {
			t.Errorf("%d answers, want 50", n)
		}
	})

	t.Run("a_broken_stream_loses_nothing_and_makes_no_second_job", func(t *testing.T) {
		const total = 20_000
		// It breaks nine times, then holds; the other node is away.
		b, url := newBatchNode(t, func(request int) int {
			if request < 10 {
				return 300 * request
			}
			return 0
		})
		c := &client.Client{URLs: []string{url, dead(t)}, WaitMin: time.Millisecond, WaitMax: time.Millisecond}
		defer c.Close()
		n := int64(0)
		for s, err := range c.Batch(t.Context(), submissions(total), jobs.AckDefault) {
			n++
			if err != nil || s.Err != nil || s.Line != n {
				t.Fatalf("answer %d = %+v, %v", n, s, err)
			}
		}
		if n != total || len(b.accepted) != total {
			t.Errorf("%d answers to %d jobs, want %d to as many", n, len(b.accepted), total)
		}
		if b.requests != 10 {
			t.Errorf("%d requests, want 10", b.requests)
		}
		for i := 1; i < len(b.order); i++ {
			if len(b.order[i]) < len(b.order[i-1]) || len(b.order[i]) == len(b.order[i-1]) && b.order[i] < b.order[i-1] {
				t.Fatalf("job %s came before %s", b.order[i-1], b.order[i])
			}
		}
	})

	t.Run("a_bad_line_is_its_own_error", func(t *testing.T) {
		_, url := newBatchNode(t, never)
		c := &client.Client{URLs: []string{url}}
		defer c.Close()
		lines := func(yield func(client.Submission) bool) {
			_ = yield(client.Submission{Iterations: 1}) && yield(client.Submission{}) && yield(client.Submission{Iterations: 3}) // three lines, whatever is answered
		}
		var codes []jobs.Code
		for s, err := range c.Batch(t.Context(), lines, jobs.AckDefault) {
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, jobs.CodeOf(s.Err))
		}
		if fmt.Sprint(codes) != "[ invalid ]" {
			t.Errorf("codes = %q", codes)
		}
	})

	t.Run("gives_up_without_progress", func(t *testing.T) {
		c := &client.Client{URLs: []string{dead(t)}, WaitMin: time.Millisecond, WaitMax: time.Millisecond}
		var last error
		for _, err := range c.Batch(t.Context(), submissions(3), jobs.AckDefault) {
			last = err
		}
		if !errors.Is(last, client.ErrUnreachable) {
			t.Errorf("err = %v, want ErrUnreachable", last)
		}
	})

	t.Run("a_refusal_is_a_jobs_error", func(t *testing.T) {
		node := &record{f: func(_ int, w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusUnsupportedMediaType, jobs.CodeUnsupported, "")
		}}
		s := httptest.NewServer(node)
		defer s.Close()
		c := &client.Client{URLs: []string{s.URL}}
		defer c.Close()
		for _, err := range c.Batch(t.Context(), submissions(3), jobs.AckDefault) {
			if jobs.CodeOf(err) != jobs.CodeUnsupported {
				t.Errorf("err = %v, want unsupported", err)
			}
		}
	})

	t.Run("may_be_left_early", func(t *testing.T) {
		_, url := newBatchNode(t, never)
		c := &client.Client{URLs: []string{url}}
		defer c.Close()
		n := 0
		for _, err := range c.Batch(t.Context(), submissions(1<<30), jobs.AckDefault) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 1000 {
				break
			}
		}
		if n != 1000 {
			t.Errorf("%d answers, want 1000", n)
		}
	})

	t.Run("ends_with_its_context", func(t *testing.T) {
		_, url := newBatchNode(t, never)
		c := &client.Client{URLs: []string{url}}
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		var last error
		for _, err := range c.Batch(ctx, submissions(1<<30), jobs.AckDefault) {
			if n++; n == 1000 {
				cancel()
			}
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("err = %v, want that of the context", last)
		}
	})

	t.Run("of_nothing", func(t *testing.T) {
		_, url := newBatchNode(t, never)
		c := &client.Client{URLs: []string{url}}
		defer c.Close()
		for s, err := range c.Batch(t.Context(), submissions(0), jobs.AckDefault) {
			t.Errorf("got %+v, %v, want nothing", s, err)
		}
	})
}
