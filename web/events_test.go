package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
)

// stream reads server-sent events: each is "name data".
func stream(t *testing.T, c net.Conn, query string) <-chan string {
	t.Helper()
	events := make(chan string, 1000)
	go fmt.Fprintf(c, "GET /v1/events%s HTTP/1.1\r\nHost: x\r\n\r\n", query) //nolint:errcheck // of a test
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("stream answers %d %v", resp.StatusCode, resp.Header)
	}
	go func() {
		defer close(events)
		name := ""
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			switch line := in.Text(); {
			case strings.HasPrefix(line, "event: "):
				name = line[len("event: "):]
			case strings.HasPrefix(line, "data: "):
				events <- name + " " + line[len("data: "):]
			case strings.HasPrefix(line, ":"):
				events <- line
			}
		}
	}()
	return events
}

func TestEvents_one_poller_for_all_viewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var polls atomic.Int64
		f := &fake{status: func() (api.Status, error) { return api.Status{Queued: polls.Add(1)}, nil }}
		dial := bubble(t, f.server(t))
		var conns []net.Conn
		var viewers []<-chan string
		for range 5 {
			conns = append(conns, dial())
			viewers = append(viewers, stream(t, conns[len(conns)-1], ""))
		}
		time.Sleep(20*time.Second + time.Millisecond)
		synctest.Wait()
		if n := polls.Load(); n < 20 || n > 22 {
			t.Errorf("%d polls in 20 s for 5 viewers, want 21", n)
		}
		for i, v := range viewers {
			status, comments := 0, 0
			for len(v) > 0 {
				if e := <-v; strings.HasPrefix(e, "status {") {
					status++
				} else if strings.HasPrefix(e, ":") {
					comments++
				}
			}
			if status < 20 || status > 22 || comments != 2 {
				t.Errorf("viewer %d saw %d snapshots and %d comments in 20 s, want 21 and 2", i, status, comments)
			}
		}
		for _, c := range conns {
			c.Close() //nolint:errcheck // of a test
		}
		time.Sleep(10 * time.Second)
		before := polls.Load()
		time.Sleep(10 * time.Second)
		if after := polls.Load(); after != before {
			t.Errorf("%d polls without a viewer", after-before)
		}
	})
}

// TestEvents_slow_viewer holds that one who takes nothing delays nobody, is let
// go, and costs one snapshot.
func TestEvents_slow_viewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{status: func() (api.Status, error) { return api.Status{}, nil }}
		dial := bubble(t, f.server(t))
		slow, quick := dial(), dial()
		fmt.Fprint(slow, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n") //nolint:errcheck // of a test
		for in := bufio.NewScanner(slow); in.Scan() && in.Text() != "event: status"; {
		}
		seen := stream(t, quick, "")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if n := len(seen); n < 10 {
			t.Errorf("%d events in 10 s beside a slow viewer, want 11", n)
		}
		// A pipe holds nothing, so a write to the slow one has failed by now.
		_ = slow.SetReadDeadline(time.Now().Add(time.Second)) // an error, as its end is closed
		if _, err := slow.Read(make([]byte, 1)); err == nil {
			t.Errorf("the slow viewer is still served after %v", web.StreamTimeout)
		}
		slow.Close()  //nolint:errcheck // of a test
		quick.Close() //nolint:errcheck
		time.Sleep(5 * time.Second)
	})
}

func TestEvents_jobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Uint64
		var looks atomic.Int64
		known, _ := jobs.ParseID("0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801")
		f := &fake{
			status: func() (api.Status, error) { return api.Status{}, nil },
			job: func(_ context.Context, id jobs.ID, _ time.Duration) (jobs.View, error) {
				if id != known {
					return jobs.View{}, jobs.Errorf(jobs.CodeNotFound, "no job %s", id)
				}
				looks.Add(1)
				return jobs.View{Job: jobs.Job{ID: id, Iterations: 100}, Leased: true, Done: done.Load()}, nil
			},
		}
		c := bubble(t, f.server(t))()
		seen := stream(t, c, "?job="+known.String()+"&job=0193a2c4-7e21-7c3e-9b1a-5d2f60c4e802&job="+known.String())
		time.Sleep(10*time.Second + time.Millisecond)
		done.Store(50)
		time.Sleep(time.Second)
		synctest.Wait()
		var got []string
		for len(seen) > 0 {
			if e := <-seen; strings.HasPrefix(e, "job ") || strings.HasPrefix(e, "gone ") {
				got = append(got, e)
			}
		}
		if len(got) != 3 || !strings.Contains(got[0], `"done":0`) || got[1] != `gone {"id":"0193a2c4-7e21-7c3e-9b1a-5d2f60c4e802"}` || !strings.Contains(got[2], `"done":50`) {
			t.Errorf("events %q: want the job, the unknown one, and the job once it changed", got)
		}
		if n := looks.Load(); n < 40 || n > 46 {
			t.Errorf("%d looks in 11 s, want 4 a second", n)
		}
		c.Close() //nolint:errcheck // of a test
		time.Sleep(5 * time.Second)
	})
}

func TestEvents_refusals(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	s.do("GET", "/v1/events?job=x", nil).refused(t, 422, jobs.CodeInvalid, "job: ", `"x"`)
	var q []string
	for i := range web.MaxWatched + 1 {
		q = append(q, fmt.Sprintf("job=0193a2c4-7e21-7c3e-9b1a-5d2f60c4%04x", i))
	}
	s.do("GET", "/v1/events?"+strings.Join(q, "&"), nil).refused(t, 422, jobs.CodeInvalid, "65", "64")
}

// TestEvents_over_a_socket follows a real job to its end.
func TestEvents_over_a_socket(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	id := s.do("PUT", "/enqueue?iterations=300000", strings.NewReader("x")).id(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/v1/events?job="+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // of a test
	status, completed := false, false
	for in := bufio.NewScanner(resp.Body); in.Scan() && !(status && completed); {
		status = status || in.Text() == "event: status"
		completed = completed || strings.Contains(in.Text(), `"state":"completed"`)
	}
	if !status || !completed {
		t.Errorf("status seen %v, completion seen %v", status, completed)
	}
}

// TestEvents_progress: the leased jobs of a node come about once a second for all
// viewers together, a bounded number of them, and a list that fails costs no more
// than itself.
func TestEvents_progress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		f := &fake{
			status: func() (api.Status, error) { return api.Status{}, nil },
			list: func(q jobs.ListQuery) (jobs.List, error) {
				n := asked.Add(1)
				if q.State != jobs.StateLeased || q.Limit != 64 || q.After != "" {
					t.Errorf("asked for %+v", q)
				}
				if n == 3 {
					return jobs.List{}, errors.New("no")
				}
				v := jobs.View{Job: jobs.Job{ID: jobs.ID{1}, Iterations: 1000}, Leased: true, Done: uint64(100 * n), Rate: 100, Worker: "w"}
				return jobs.List{Jobs: []jobs.View{v}, More: true}, nil
			},
		}
		dial := bubble(t, f.server(t))
		var viewers []<-chan string
		var conns []net.Conn
		for range 3 {
			conns = append(conns, dial())
			viewers = append(viewers, stream(t, conns[len(conns)-1], ""))
		}
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if n := asked.Load(); n < 5 || n > 7 {
			t.Errorf("asked %d times in 5 s for 3 viewers", n)
		}
		for i, v := range viewers {
			status, progress := 0, 0
			for len(v) > 0 {
				switch e := <-v; {
				case strings.HasPrefix(e, "status {"):
					status++
				case strings.HasPrefix(e, "progress {"):
					progress++
					if want := `progress {"jobs":[{"id":"01000000-0000-0000-0000-000000000000","iterations":1000,"done":`; !strings.HasPrefix(e, want) {
						t.Errorf("viewer %d: %s", i, e)
					}
					if !strings.Contains(e, `,"rate":100,"eta":`) || !strings.HasSuffix(e, `"worker":"w"}],"more":true}`) {
						t.Errorf("viewer %d: %s", i, e)
					}
				}
			}
			if progress < 4 || progress != status-1 {
				t.Errorf("viewer %d saw %d snapshots and %d times the progress, want one less", i, status, progress)
			}
		}
		for _, c := range conns {
			c.Close() //nolint:errcheck // of a test
		}
		time.Sleep(10 * time.Second)
	})
}
