package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/web/api"
)

// TestVerifySegments: a node whose checkpoints are wrong in one place is told
// which segment it is, whether all are looked at or a few by chance; one without
// the route is verified as ever.
func TestVerifySegments(t *testing.T) {
	const id = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	data := []byte("hello")
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(n uint64) string { return jobs.Value(hashchain.Value(data, n)).String() }
	good := []api.Checkpoint{{Done: 1, Value: at(1)}, {Done: 1001, Value: at(1001)}, {Done: 2001, Value: at(2001)}, {Done: 3001, Value: at(3001)}}
	ladder := func(edit func(l []api.Checkpoint)) []api.Checkpoint {
		l := append([]api.Checkpoint{}, good...)
		edit(l)
		return l
	}
	for name, c := range map[string]struct {
		list []api.Checkpoint // nil: no such route
		args string
		exit int
		want string
	}{
		"all right":            {good, "", exitDone, "3 segments"},
		"an older node":        {nil, "", exitDone, "ok: the value is right"},
		"one wrong":            {ladder(func(l []api.Checkpoint) { l[1].Value = at(1000) }), "", exitMismatch, "segment 1 of 3, iterations 1 to 1001"},
		"a place wrong":        {ladder(func(l []api.Checkpoint) { l[2].Done = 2002 }), "", exitMismatch, "segment 2 of 3, iterations 1001 to 2002"},
		"sample, every one":    {ladder(func(l []api.Checkpoint) { l[2].Value = at(2000) }), "--sample 3", exitMismatch, "segment 2 of 3"},
		"no way to its end":    {good[:3], "", exitMismatch, "do not lead"},
		"no way from v1":       {good[1:], "", exitMismatch, "do not lead"},
		"places that fall":     {[]api.Checkpoint{good[0], good[2], good[1], good[3]}, "", exitFailed, "is at 1001"},
		"other data, a sample": {ladder(func(l []api.Checkpoint) { l[0].Value = at(2) }), "--sample 1", exitMismatch, "is not the data"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var out any
			switch {
			case r.URL.Path == "/v1/jobs/"+id:
				now := time.Now()
				out = api.Job{ID: id, State: "completed", Iterations: 3001, Done: 3001, Value: at(3001), CreatedAt: now, FinishedAt: &now, Node: "a"}
			case r.URL.Path == "/v1/jobs/"+id+"/checkpoints" && c.list != nil:
				out = api.Checkpoints{Checkpoints: c.list}
			default:
				w.Header().Set("Content-Type", api.MediaProblem)
				w.WriteHeader(http.StatusNotFound)
				out = api.Problem{Status: 404, Detail: "no such route", Code: string(jobs.CodeNoRoute)}
			}
			_ = json.NewEncoder(w).Encode(out) // a client that has gone is no error
		}))
		var stdout, stderr bytes.Buffer
		args := append([]string{"workmanager", "verify", "--node", srv.URL}, strings.Fields(c.args)...)
		exit := Main(t.Context(), append(args, id, file), strings.NewReader(""), &stdout, &stderr)
		if text := stdout.String() + stderr.String(); exit != c.exit || !strings.Contains(text, c.want) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s", name, exit, c.exit, c.want, text)
		}
		srv.Close()
	}
}
