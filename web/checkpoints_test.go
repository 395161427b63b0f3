package web_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/api"
)

// TestCheckpoints: every way to submit a job takes checkpoints to keep, they are
// right and at their places, and a purge leaves none.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	s := startNode(t)
	const iterations = 20_001
	line := `{"data":"` + base64.StdEncoding.EncodeToString([]byte("hello")) + `","iterations":20001,"checkpoints":4}`
	submit := map[string]func() string{
		"PUT /enqueue": func() string {
			var id api.WorkID
			s.do("PUT", "/enqueue?iterations=20001&checkpoints=4", strings.NewReader("hello"), "Content-Type: application/octet-stream").into(t, &id)
			return id.ID
		},
		"POST /v1/jobs": func() string {
			var j api.Job
			s.do("POST", "/v1/jobs", strings.NewReader(line), "Content-Type: application/json").into(t, &j)
			if j.Checkpoints != 4 {
				t.Errorf("submitted: keeps %d, want 4", j.Checkpoints)
			}
			return j.ID
		},
		"POST /v1/jobs, in the query": func() string {
			var j api.Job
			s.do("POST", "/v1/jobs?iterations=20001&checkpoints=4", strings.NewReader("hello"), "Content-Type: application/octet-stream").into(t, &j)
			return j.ID
		},
		"a line of a batch": func() string {
			var l api.BatchLine
			s.do("POST", "/v1/jobs/batch", strings.NewReader(line+"\n"), "Content-Type: application/x-ndjson").into(t, &l)
			return l.ID
		},
	}
	for name, f := range submit {
		id := f()
		var j api.Job
		s.do("GET", "/v1/jobs/"+id+"?wait=30s", nil).into(t, &j)
		if j.State != "completed" || j.Checkpoints != 4 || j.ResumedFrom != 0 {
			t.Fatalf("%s: %+v", name, j)
		}
		var list api.Checkpoints
		s.do("GET", "/v1/jobs/"+id+"/checkpoints", nil).into(t, &list)
		var got, want []string
		for _, c := range list.Checkpoints {
			got = append(got, fmt.Sprintf("%d %s", c.Done, c.Value))
		}
		for _, at := range []uint64{1, 4001, 8001, 12001, 16001, iterations} {
			want = append(want, fmt.Sprintf("%d %v", at, jobs.Value(hashchain.Value([]byte("hello"), at))))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: checkpoints\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		j = api.Job{}
		s.do("DELETE", "/v1/jobs/"+id+"?purge=true", nil).into(t, &j)
		if j.Checkpoints != 0 || !j.Purged {
			t.Errorf("%s: purged: %+v", name, j)
		}
		if a := s.do("GET", "/v1/jobs/"+id+"/checkpoints", nil); strings.TrimSpace(a.body) != `{"checkpoints":[]}` {
			t.Errorf("%s: purged: %d %s", name, a.status, a.body)
		}
	}
}

func TestCheckpointsRefusals(t *testing.T) {
	t.Parallel()
	s := startNode(t, noWorker)
	for _, k := range []string{"1001", "-1", "all", "", "1.5", "99999999999999999999"} {
		s.do("PUT", "/enqueue?iterations=5&checkpoints="+k, strings.NewReader("x")).refused(t, 422, jobs.CodeInvalid, "checkpoints: ", "0 to 1000")
	}
	for _, c := range []struct{ iterations, keep, want int }{{1, 1000, 0}, {2, 3, 0}, {2001, 9, 1}, {10_001, 1000, 9}, {10_001, 2, 2}} {
		var j api.Job
		s.do("POST", fmt.Sprintf("/v1/jobs?iterations=%d&checkpoints=%d", c.iterations, c.keep), strings.NewReader("x"), "Content-Type: text/plain").into(t, &j)
		if j.Checkpoints != c.want {
			t.Errorf("%d of %d iterations: keeps %d, want %d", c.keep, c.iterations, j.Checkpoints, c.want)
		}
		var list api.Checkpoints
		s.do("GET", "/v1/jobs/"+j.ID+"/checkpoints", nil).into(t, &list)
		if len(list.Checkpoints) != 1 || list.Checkpoints[0] != (api.Checkpoint{Done: 1, Value: valueOf("x")}) {
			t.Errorf("%d iterations, not begun: checkpoints %+v, want v1 alone", c.iterations, list.Checkpoints)
		}
	}
	for _, id := range []string{"0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801", "x"} {
		s.do("GET", "/v1/jobs/"+id+"/checkpoints", nil).refused(t, 404, jobs.CodeNotFound)
	}
}
