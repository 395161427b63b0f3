package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"workmanager/jobs"
	"workmanager/jobs/hashchain"
	"workmanager/node"
	"workmanager/web/api"
)

const (
	workerJSON = `"worker":{"name":"w1","instance":"0a1b","cores":2,"lanes":8,"rate":1e6,"kernel":"generic","version":"devel"}`
	someBoot   = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e8ff"
)

// takesReports is a server that takes every report, and what came.
func takesReports(t *testing.T) (*service, *[]jobs.Report) {
	var got []jobs.Report
	f := &fake{report: func(_ jobs.Worker, batch []jobs.Report) ([]jobs.Verdict, error) {
		got = append(got, batch...)
		return make([]jobs.Verdict, len(batch)), nil
	}}
	return &service{Server: serve(t, validated(t, f.server(t))), t: t}, &got
}

// reportJSON is a report that is right, with other members in the place of some.
func reportJSON(t *testing.T, change map[string]any) string {
	t.Helper()
	r := map[string]any{"id": testJob, "boot": someBoot, "fence": 7, "v1": valueOf("hello"), "iterations": 1000, "kind": "progress", "done": 10, "value": valueOf("x")}
	for k, v := range change {
		if v == nil {
			delete(r, k)
		} else {
			r[k] = v
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	testJob = "0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801"
	golden5 = "5ab743e5b9704b2ae1584c7b768aba17d98388c1cb56b7c7240a0636157e21251ecb636baff93da58db7ea849c1f8717649a6963162ee8fe66fc9b391a2aa94c" // of hello, 5 times
)

func TestWorkerReport_bad_input(t *testing.T) {
	s, got := takesReports(t)
	value := valueOf("x")
	type change = map[string]any
	for name, row := range map[string]struct {
		change change
		field  string
	}{
		"negative fence":        {change{"fence": -1}, "fence"},
		"huge fence":            {change{"fence": 1e30}, "fence"},
		"fence is text":         {change{"fence": "7"}, "fence"},
		"no ID":                 {change{"id": nil}, "id"},
		"bad ID":                {change{"id": "42"}, "id"},
		"ID is a number":        {change{"id": 42}, "id"},
		"bad boot":              {change{"boot": strings.Repeat("g", 36)}, "boot"},
		"short v1":              {change{"v1": value[:126]}, "v1"},
		"no iterations":         {change{"iterations": nil}, "iterations"},
		"too many iterations":   {change{"iterations": uint64(jobs.MaxIterations) + 1}, "iterations"},
		"negative iterations":   {change{"iterations": -5}, "iterations"},
		"half an iteration":     {change{"iterations": 1.5}, "iterations"},
		"done > iterations":     {change{"done": 1001}, "done"},
		"negative done":         {change{"done": -1}, "done"},
		"huge done":             {change{"done": 1e300}, "done"},
		"value not at the end":  {change{"kind": "value"}, "done"},
		"63 bytes of value":     {change{"value": value[:126]}, "value"},
		"65 bytes of value":     {change{"value": value + "00"}, "value"},
		"value is no hex":       {change{"value": strings.Repeat("zz", 64)}, "value"},
		"no value":              {change{"value": nil}, "value"},
		"value is a list":       {change{"value": []int{1}}, "value"},
		"unknown kind":          {change{"kind": "done"}, "kind"},
		"no kind":               {change{"kind": nil}, "kind"},
		"negative rate":         {change{"rate": -1}, "rate"},
		"huge rate":             {change{"rate": 1e300}, "rate"},
		"failure without words": {change{"kind": "failure"}, "error"},
		"long reason":           {change{"kind": "failure", "error": strings.Repeat("x", jobs.MaxErrBytes+1)}, "error"},
		"unknown member":        {change{"mood": "fine"}, "mood"},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{` + workerJSON + `,"reports":[` + reportJSON(t, nil) + `,` + reportJSON(t, row.change) + `]}`
			p := s.do("POST", "/worker/report", strings.NewReader(body), "Content-Type: application/json").refused(t, 422, jobs.CodeInvalid)
			if !slices.ContainsFunc(p.Errors, func(e api.FieldError) bool { return strings.Contains(strings.Join(e.Loc, "."), row.field) }) {
				t.Errorf("errors %+v name no %s", p.Errors, row.field)
			}
		})
	}
	if len(*got) != 0 {
		t.Errorf("%d reports of refused batches were taken", len(*got))
	}

	good := `{` + workerJSON + `,"reports":[` + reportJSON(t, nil) + `]}`
	for name, row := range map[string]struct {
		body, media string
		status      int
		code        jobs.Code
		words       string
	}{
		"no JSON":          {"hello", "application/json", 400, jobs.CodeMalformed, "no JSON object"},
		"empty":            {"", "application/json", 400, jobs.CodeMalformed, "no JSON object"},
		"a list":           {"[]", "application/json", 400, jobs.CodeMalformed, "array"},
		"two objects":      {good + good, "application/json", 400, jobs.CodeMalformed, "follows"},
		"cut off":          {good[:len(good)-1], "application/json", 400, jobs.CodeMalformed, "no JSON object"},
		"another type":     {good, "text/plain", 415, jobs.CodeUnsupported, "application/json"},
		"no worker":        {`{"reports":[]}`, "application/json", 422, jobs.CodeInvalid, "name"},
		"reports is a map": {`{` + workerJSON + `,"reports":{}}`, "application/json", 422, jobs.CodeInvalid, "reports"},
		"too many":         {`{` + workerJSON + `,"reports":[` + strings.Repeat("{},", 4096) + `{}]}`, "application/json", 422, jobs.CodeInvalid, "4097"},
		"10 MB":            {`{` + workerJSON + `,"reports":[` + strings.Repeat(" ", 10<<20) + `]}`, "application/json", 413, jobs.CodeTooLarge, "10485760"},
	} {
		t.Run(name, func(t *testing.T) {
			s.do("POST", "/worker/report", strings.NewReader(row.body), "Content-Type: "+row.media).refused(t, row.status, row.code, row.words)
		})
	}
	// Of many wrong reports not all are told.
	var many []string
	for range 1000 {
		many = append(many, reportJSON(t, change{"done": 1001}))
	}
	p := s.do("POST", "/worker/report", strings.NewReader(`{`+workerJSON+`,"reports":[`+strings.Join(many, ",")+`]}`), "Content-Type: application/json").refused(t, 422, jobs.CodeInvalid)
	if len(p.Errors) != 16 {
		t.Errorf("%d errors are told, want 16", len(p.Errors))
	}
	if len(*got) != 0 {
		t.Errorf("%d reports were taken", len(*got))
	}
	s.do("POST", "/worker/report", strings.NewReader(good), "Content-Type: application/json; charset=utf-8")
	if len(*got) != 1 || (*got)[0].Fence.N != 7 || (*got)[0].Progress.Done != 10 || (*got)[0].Progress.Value.String() != value {
		t.Errorf("took %+v, want the report", *got)
	}
}

func TestWorkerLease_bad_input(t *testing.T) {
	f := &fake{lease: func(context.Context, jobs.Worker, jobs.Capacity) ([]jobs.Lease, error) {
		t.Error("a bad request was taken")
		return nil, nil
	}}
	s := &service{Server: serve(t, validated(t, f.server(t))), t: t}
	worker := func(name, text string) string {
		return strings.Replace(workerJSON, `"`+name+`":`, `"`+name+`":`+text+`,"x":`, 1)
	}
	for field, bodies := range map[string][]string{
		"jobs":       {workerJSON + `,"iterations":5`, workerJSON + `,"jobs":0,"iterations":5`, workerJSON + `,"jobs":-1,"iterations":5`, workerJSON + `,"jobs":16385,"iterations":5`, workerJSON + `,"jobs":"5","iterations":5`, workerJSON + `,"jobs":1e30,"iterations":5`},
		"iterations": {workerJSON + `,"jobs":5`, workerJSON + `,"jobs":5,"iterations":-1`, workerJSON + `,"jobs":5,"iterations":1.5`},
		"wait":       {workerJSON + `,"jobs":5,"iterations":5,"wait":-1`, workerJSON + `,"jobs":5,"iterations":5,"wait":61`, workerJSON + `,"jobs":5,"iterations":5,"wait":"5s"`},
		"x":          {workerJSON + `,"jobs":5,"iterations":5,"x":1`, worker("name", `"w"`) + `,"jobs":5,"iterations":5`},
		"name":       {`"jobs":5,"iterations":5`, strings.Replace(workerJSON, `"w1"`, `"a/b"`, 1) + `,"jobs":5,"iterations":5`, strings.Replace(workerJSON, `"w1"`, `"`+strings.Repeat("w", 64)+`"`, 1) + `,"jobs":5,"iterations":5`},
		"instance":   {strings.Replace(workerJSON, `"0a1b"`, `""`, 1) + `,"jobs":5,"iterations":5`, strings.Replace(workerJSON, `"0a1b"`, `"\u001b[2J"`, 1) + `,"jobs":5,"iterations":5`},
		"cores":      {strings.Replace(workerJSON, `"cores":2`, `"cores":0`, 1) + `,"jobs":5,"iterations":5`, strings.Replace(workerJSON, `"cores":2`, `"cores":5000`, 1) + `,"jobs":5,"iterations":5`},
		"rate":       {strings.Replace(workerJSON, `1e6`, `-1`, 1) + `,"jobs":5,"iterations":5`},
		"kernel":     {strings.Replace(workerJSON, `"generic"`, `"<b>"`, 1) + `,"jobs":5,"iterations":5`},
	} {
		for _, body := range bodies {
			t.Run(fmt.Sprintf("%s %.60s", field, body), func(t *testing.T) {
				s.do("POST", "/worker/lease", strings.NewReader("{"+body+"}"), "Content-Type: application/json").refused(t, 422, jobs.CodeInvalid, field)
			})
		}
	}
	s.do("POST", "/worker/lease", strings.NewReader(strings.Repeat(" ", 65<<10)), "Content-Type: application/json").refused(t, 413, jobs.CodeTooLarge)
	if a := s.do("GET", "/worker/lease", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET answered %d, want 405", a.status)
	}
}

// TestWorkerLease_over_a_node runs the two routes against a real node.
func TestWorkerLease_over_a_node(t *testing.T) {
	s := startNode(t, func(c *node.Config) { c.Workers = 0 })
	lease := func(wait float64) (out api.LeaseReply) {
		t.Helper()
		s.do("POST", "/worker/lease", strings.NewReader(fmt.Sprintf(`{%s,"jobs":10,"iterations":100,"wait":%g}`, workerJSON, wait)), "Content-Type: application/json").into(t, &out)
		return out
	}
	report := func(reports ...string) []string {
		t.Helper()
		var out api.ReportReply
		s.do("POST", "/worker/report", strings.NewReader(`{`+workerJSON+`,"reports":[`+strings.Join(reports, ",")+`]}`), "Content-Type: application/json").into(t, &out)
		return out.Verdicts
	}
	if got := lease(0); len(got.Leases) != 0 || got.Leases == nil || len(got.Nodes) != 1 {
		t.Errorf("an empty node gave %+v, want no leases and one node", got)
	}
	// A call that waits is woken.
	woken := make(chan api.LeaseReply, 1)
	go func() { woken <- lease(30) }()
	begin := time.Now()
	id := s.do("PUT", "/enqueue?iterations=5", strings.NewReader("hello"), "Content-Type: text/plain").id(t)
	got := <-woken
	if len(got.Leases) != 1 || got.Leases[0].ID != id || got.Leases[0].Done != 1 || got.Leases[0].Value != "" || got.Leases[0].V1 != valueOf("hello") || got.TTL != 7 {
		t.Fatalf("got %+v, want a lease of %s", got, id)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the call that waited was answered after %v", took)
	}
	l := got.Leases[0]
	ref := map[string]any{"id": l.ID, "boot": l.Boot, "fence": l.Fence, "v1": l.V1, "iterations": 5}
	with := func(change map[string]any) string {
		all := map[string]any{}
		for _, m := range []map[string]any{ref, change} {
			for k, v := range m {
				all[k] = v
			}
		}
		return reportJSON(t, all)
	}
	end := map[string]any{"kind": "value", "done": 5, "value": golden5}
	unknown := strings.Replace(testJob, "01", "02", 1)
	for _, row := range []struct {
		name, want string
		report     string
	}{
		{"progress", "kept", with(map[string]any{"done": 2, "value": jobs.Value(hashchain.Value([]byte("hello"), 2)).String()})},
		{"unknown fence of a leased job", "lost", with(map[string]any{"done": 2, "fence": 99})},
		{"fence of another boot", "lost", with(map[string]any{"done": 2, "boot": someBoot})},
		{"unknown job", "lost", with(map[string]any{"done": 2, "id": unknown})},
		{"value of an unknown job", "lost", with(map[string]any{"id": unknown, "kind": "value", "done": 5})},
		{"other work under the same ID", "lost", with(map[string]any{"v1": valueOf("other"), "kind": "value", "done": 5})},
		{"failure under a fence that is not its own", "lost", with(map[string]any{"fence": 99, "done": 2, "kind": "failure", "error": "on fire"})},
		{"the right value under a fence that is lost", "kept", with(map[string]any{"fence": 99, "kind": "value", "done": 5, "value": golden5})},
		{"the same again", "kept", with(end)},
		{"progress of an ended job", "lost", with(map[string]any{"done": 3})},
	} {
		if v := report(row.report); len(v) != 1 || v[0] != row.want {
			t.Errorf("%s: verdict %v, want %s", row.name, v, row.want)
		}
	}
	if v := s.value(id); v != golden5 {
		t.Errorf("value %s, want %s", v, golden5)
	}
	// A withdrawn job.
	gone := s.do("PUT", "/enqueue?iterations=5", strings.NewReader("bye"), "Content-Type: text/plain").id(t)
	l = lease(5).Leases[0]
	s.do("DELETE", "/v1/jobs/"+gone+"?purge=true", nil)
	ref["id"], ref["fence"], ref["v1"] = l.ID, l.Fence, l.V1
	if v := report(with(map[string]any{"done": 2})); v[0] != "withdrawn" {
		t.Errorf("progress of an erased job: verdict %v, want withdrawn", v)
	}
	var st api.Status
	s.do("GET", "/v1/status", nil).into(t, &st)
	if w := st.WorkerList; len(w) != 1 || w[0].Name != "w1" || w[0].Instance != "0a1b" || w[0].Cores != 2 || w[0].Lanes != 8 || w[0].Kernel != "generic" || w[0].Version != "devel" || w[0].Rate != 1e6 {
		t.Errorf("status shows %+v", w)
	}
}

func TestWorkerLease_ends_with_the_server(t *testing.T) {
	asked := make(chan struct{})
	f := &fake{lease: func(ctx context.Context, _ jobs.Worker, _ jobs.Capacity) ([]jobs.Lease, error) {
		close(asked)
		<-ctx.Done()
		return nil, nil
	}, report: func(jobs.Worker, []jobs.Report) ([]jobs.Verdict, error) {
		return nil, errors.New("the disk is on fire")
	}}
	srv := f.server(t)
	s := &service{Server: serve(t, validated(t, srv)), t: t}
	body := `{` + workerJSON + `,"jobs":10,"iterations":100,"wait":60}`
	answers := make(chan answer, 1)
	go func() {
		answers <- s.do("POST", "/worker/lease", strings.NewReader(body), "Content-Type: application/json")
	}()
	<-asked
	srv.Stop()
	if a := <-answers; a.status != http.StatusOK {
		t.Errorf("the call that waited was answered %d %s, want no leases", a.status, a.body)
	}
	s.do("POST", "/worker/lease", strings.NewReader(body), "Content-Type: application/json").refused(t, 503, jobs.CodeStopping)
	if a := s.do("POST", "/worker/report", strings.NewReader(`{`+workerJSON+`,"reports":[]}`), "Content-Type: application/json"); a.status != 500 || strings.Contains(a.body, "fire") {
		t.Errorf("an internal error is answered %d %s", a.status, a.body)
	}
}
