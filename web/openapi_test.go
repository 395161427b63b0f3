package web_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"workmanager/jobs"
	"workmanager/web"
)

var update = flag.Bool("update", false, "rewrite generated files")

// apiDoc is openapi.yaml, loaded once, with a mux that finds a request's path
// in it. Its schemas are strict: a property that is not documented is an error,
// though to clients the document promises only that properties are added.
type apiDoc struct {
	doc *openapi3.T
	mux *http.ServeMux
}

// documented is one path of the document; as a handler it does nothing.
type documented struct {
	path string
	item *openapi3.PathItem
}

func (documented) ServeHTTP(http.ResponseWriter, *http.Request) {}

var loadAPIDoc = sync.OnceValues(func() (*apiDoc, error) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		return nil, fmt.Errorf("load openapi.yaml: %w", err)
	}
	never := false
	if err := doc.WalkSchemas(func(_ string, ref *openapi3.SchemaRef) error {
		if s := ref.Value; len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
			s.AdditionalProperties.Has = &never
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("make the schemas strict: %w", err)
	}
	// A client may send other keys beside data.
	doc.Components.Schemas["JSONData"].Value.AdditionalProperties.Has = nil
	d := &apiDoc{doc: doc, mux: http.NewServeMux()}
	for path, item := range doc.Paths.Map() {
		pattern := path
		if path == "/" {
			pattern = "/{$}"
		}
		d.mux.Handle(pattern, documented{path, item})
	}
	return d, nil
})

// maxChecked bounds what of one body is checked: its first lines, if it is a
// stream, and its first bytes.
const (
	maxCheckedLines = 100
	maxCheckedBytes = 8 << 20
)

// validated returns h with every answer checked against openapi.yaml: status,
// headers, media type and body. A difference fails t. The wrapped
// ResponseWriter supports http.ResponseController; of a stream the first
// maxCheckedLines lines or events are checked. Safe for concurrent use; an
// answer that ends after t has ended is not checked.
func validated(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	d, err := loadAPIDoc()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards ended, and with it t
	ended := false
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		var sent capped
		if mediaType(r.Header) == "application/json" && r.Body != nil {
			r.Body = &teeBody{r.Body, &sent}
		}
		method, target, find := r.Method, r.URL.String(), r.Clone(r.Context())
		h.ServeHTTP(rec, r) // a panic goes on to the server, unchecked
		problems := d.check(find, &sent, rec)
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		for _, p := range problems {
			t.Errorf("%s %s answered %d, openapi.yaml disagrees: %v", method, target, rec.status, p)
		}
	})
}

// recorder keeps what a handler answers while it passes it on.
type recorder struct {
	http.ResponseWriter
	status int
	sent   http.Header // as of the first byte
	body   capped
}

func (w *recorder) WriteHeader(status int) {
	if w.sent == nil && status >= 200 {
		w.status, w.sent = status, w.Header().Clone()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.sent == nil {
		w.WriteHeader(http.StatusOK)
	}
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}

// Flush passes a flush on; streams need it.
func (w *recorder) Flush() {
	if w.sent == nil {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // a test's writer may not flush
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// capped keeps the first maxCheckedBytes of what is written to it.
type capped struct {
	bytes.Buffer
	cut bool
}

func (c *capped) Write(b []byte) (int, error) {
	if room := maxCheckedBytes - c.Len(); len(b) > room {
		c.cut = true
		b = b[:room]
	}
	return c.Buffer.Write(b)
}

type teeBody struct {
	io.ReadCloser
	to *capped
}

func (b *teeBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.to.Write(p[:n])
	return n, err
}

func mediaType(h http.Header) string {
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mt
}

// check returns what is wrong with the answer in rec to r, whose body began
// with sent.
func (d *apiDoc) check(r *http.Request, sent *capped, rec *recorder) []error {
	header := rec.sent
	if header == nil { // a handler that wrote nothing at all
		header = rec.Header()
	}
	handler, _ := d.mux.Handler(r)
	found, _ := handler.(documented)
	var op *openapi3.Operation
	if found.item != nil {
		op = found.item.GetOperation(strings.ReplaceAll(r.Method, http.MethodHead, http.MethodGet))
	}
	var ref *openapi3.ResponseRef
	switch {
	case op != nil && rec.status != http.StatusMethodNotAllowed:
		ref = op.Responses.Status(rec.status)
	case rec.status == http.StatusTemporaryRedirect:
		return nil // a slash too many
	case rec.status == http.StatusNotFound:
		ref = d.doc.Components.Responses["NotFound"]
	case rec.status == http.StatusMethodNotAllowed:
		ref = d.doc.Components.Responses["MethodNotAllowed"]
		if header.Get("Allow") == "" {
			return []error{fmt.Errorf("405 without Allow")}
		}
	}
	if ref == nil && rec.status == http.StatusTooManyRequests { // any route may answer it
		ref = d.doc.Components.Responses["Limited"]
	}
	if ref == nil {
		return []error{fmt.Errorf("this status is not documented; body %.300q", rec.body.String())}
	}
	errs := d.checkHeaders(ref.Value, header)
	if r.Method == http.MethodHead {
		return errs
	}
	errs = append(errs, d.checkBody(ref.Value, header, &rec.body)...)
	if op != nil && rec.status < 300 && sent.Len() > 0 && !sent.cut && op.RequestBody != nil {
		if mt := op.RequestBody.Value.Content["application/json"]; mt != nil {
			if err := visit(mt.Schema, sent.Bytes()); err != nil {
				errs = append(errs, fmt.Errorf("a request body was accepted that is not documented: %w", err))
			}
		}
	}
	return errs
}

// checkHeaders compares the headers that are ours to document.
func (d *apiDoc) checkHeaders(resp *openapi3.Response, header http.Header) (errs []error) {
	names := map[string]bool{}
	for name, ref := range resp.Headers {
		names[http.CanonicalHeaderKey(name)] = true
		got := header.Get(name)
		if got == "" {
			if ref.Value.Required {
				errs = append(errs, fmt.Errorf("header %s is missing", name))
			}
			continue
		}
		raw, err := json.Marshal(got)
		if ref.Value.Schema.Value.Type.Is("integer") {
			raw, err = []byte(got), nil
		}
		if err == nil {
			err = visit(ref.Value.Schema, raw)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("header %s: %q: %w", name, got, err))
		}
	}
	for name := range header {
		ours := strings.HasPrefix(name, "Workmanager-") || slices.Contains([]string{"Retry-After", "Location", "Etag", "Link"}, name)
		if ours && !names[name] {
			errs = append(errs, fmt.Errorf("header %s is not documented here", name))
		}
	}
	return errs
}

// checkBody compares media type and body; of a stream, line by line.
func (d *apiDoc) checkBody(resp *openapi3.Response, header http.Header, body *capped) (errs []error) {
	if len(resp.Content) == 0 {
		if body.Len() > 0 {
			errs = append(errs, fmt.Errorf("has a body, %d bytes or more, and none is documented", body.Len()))
		}
		return errs
	}
	mt := mediaType(header)
	content := resp.Content[mt]
	if content == nil {
		return []error{fmt.Errorf("media type %q is not documented here", header.Get("Content-Type"))}
	}
	switch mt {
	case "application/x-ndjson":
		for n, line := range bytes.Split(bytes.TrimSuffix(body.Bytes(), []byte("\n")), []byte("\n")) {
			if n == maxCheckedLines || body.Len() == 0 {
				break
			}
			if err := visit(content.Schema, line); err != nil && !body.cut {
				errs = append(errs, fmt.Errorf("line %d %.200q: %w", n+1, line, err))
			}
		}
	case "text/event-stream":
		events, _ := content.Extensions["x-events"].(map[string]any)
		for n, block := range strings.Split(body.String(), "\n\n") {
			if n == maxCheckedLines {
				break
			}
			if err := d.checkEvent(events, block); err != nil && !body.cut {
				errs = append(errs, fmt.Errorf("event %d %.200q: %w", n+1, block, err))
			}
		}
	case "application/json", "application/problem+json":
		if err := visit(content.Schema, body.Bytes()); err != nil && !body.cut {
			errs = append(errs, fmt.Errorf("body %.300q: %w", body.String(), err))
		}
	}
	return errs
}

// checkEvent checks one server-sent event: known fields only, a documented
// name, data that fits its schema. The last one of a cut stream may be partial.
func (d *apiDoc) checkEvent(events map[string]any, block string) error {
	name, data, hasData := "message", "", false
	for line := range strings.SplitSeq(block, "\n") {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "": // empty, or a comment
		case "event":
			name = value
		case "data":
			data, hasData = data+value, true
		case "id", "retry":
		default:
			return fmt.Errorf("no such field %q", field)
		}
	}
	if !hasData {
		return nil
	}
	schema, ok := events[name].(string)
	if !ok {
		return fmt.Errorf("event %q is not documented in x-events", name)
	}
	return visit(d.doc.Components.Schemas[schema], []byte(data))
}

// visit checks one JSON value.
func visit(schema *openapi3.SchemaRef, raw []byte) error {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("is not JSON: %w", err)
	}
	return schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020(), openapi3.EnableFormatValidation())
}

func TestOpenAPI_is_valid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaPatternValidation()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			if op.Summary == "" || op.OperationID == "" || len(op.Tags) != 1 {
				t.Errorf("%s: summary %q, operationId %q, tags %v: want one of each", where, op.Summary, op.OperationID, op.Tags)
			}
			if doc.Tags.Get(op.Tags[0]) == nil {
				t.Errorf("%s: tag %q is not declared", where, op.Tags[0])
			}
			if other, ok := seen[op.OperationID]; ok {
				t.Errorf("%s and %s share operationId %q", where, other, op.OperationID)
			}
			seen[op.OperationID] = where
			for _, p := range op.Parameters {
				if p.Value.Description == "" {
					t.Errorf("%s: parameter %s has no description", where, p.Value.Name)
				}
			}
		}
	}
}

// TestOpenAPI_json_is_fresh holds openapi.json to openapi.yaml. The binary has
// no YAML parser, so the JSON is made here: go test ./web -run OpenAPI -update.
func TestOpenAPI_json_is_fresh(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Indent(&want, raw, "", " "); err != nil {
		t.Fatal(err)
	}
	want.WriteByte('\n')
	if *update {
		if err := os.WriteFile("openapi.json", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("openapi.json, %d bytes, is not what openapi.yaml makes, %d bytes; run go test ./web -run OpenAPI -update", len(got), want.Len())
	}
}

// TestValidated_catches shows that the check is not blind.
func TestValidated_catches(t *testing.T) {
	const id, problem = `0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801`, `{"title":"Not Found","status":404,"detail":"no such job","code":"not_found"}`
	ndjson := http.Header{"Content-Type": {"application/x-ndjson"}}
	sse := http.Header{"Content-Type": {"text/event-stream"}}
	js := http.Header{"Content-Type": {"application/json"}}
	durable := http.Header{"Content-Type": {"application/json"}, "Workmanager-Durability": {"both"}}
	prob := http.Header{"Content-Type": {"application/problem+json"}}
	with := func(h http.Header, k, v string) http.Header {
		h = h.Clone()
		h.Set(k, v)
		return h
	}
	for _, row := range []struct {
		name, method, target string
		status               int
		header               http.Header
		body                 string
		wrong                string // "" if it is right
	}{
		{"enqueue", "PUT", "/enqueue?iterations=5", 200, durable, `{"Work ID":"` + id + `"}`, ""},
		{"unknown key", "PUT", "/enqueue?iterations=5", 200, durable, `{"Work ID":"` + id + `","x":1}`, "additional"},
		{"no durability", "PUT", "/enqueue?iterations=5", 200, js, `{"Work ID":"` + id + `"}`, "is missing"},
		{"odd durability", "PUT", "/enqueue?iterations=5", 200, with(durable, "Workmanager-Durability", "most"), `{"Work ID":"` + id + `"}`, "Workmanager-Durability"},
		{"upper-case id", "PUT", "/enqueue?iterations=5", 200, durable, `{"Work ID":"` + strings.ToUpper(id) + `"}`, "pattern"},
		{"undocumented status", "PUT", "/enqueue?iterations=5", 202, durable, `{}`, "not documented"},
		{"undocumented header", "GET", "/healthz", 200, with(js, "Workmanager-Mood", "fine"), `{"status":"ok"}`, "not documented"},
		{"null list", "GET", "/v1/jobs", 200, js, `{"jobs":null,"cursor":"","more":false}`, "jobs"},
		{"problem", "GET", "/v1/jobs/" + id, 404, prob, problem, ""},
		{"problem without code", "GET", "/v1/jobs/" + id, 404, prob, `{"title":"Not Found","status":404,"detail":"no"}`, "code"},
		{"problem as JSON", "GET", "/v1/jobs/" + id, 404, js, problem, "media type"},
		{"no such route", "GET", "/nothing", 404, prob, problem, ""},
		{"method without Allow", "POST", "/enqueue", 405, prob, problem, "Allow"},
		{"method", "POST", "/enqueue", 405, with(prob, "Allow", "PUT"), problem, ""},
		{"HEAD", "HEAD", "/status", 200, js, ``, ""},
		{"slash too many", "PUT", "/enqueue/", 307, http.Header{"Location": {"/enqueue"}}, ``, ""},
		{"batch", "POST", "/v1/jobs/batch", 200, ndjson, `{"line":1,"id":"` + id + `"}` + "\n" + `{"line":2}` + "\n", ""},
		{"batch line 2", "POST", "/v1/jobs/batch", 200, ndjson, `{"line":1,"id":"` + id + `"}` + "\n" + `{"line":0}` + "\n", "line 2"},
		{"events", "GET", "/v1/events", 200, sse, ": hello\n\nevent: job\ndata: {}\n\n", "event 2"},
		{"odd event", "GET", "/v1/events", 200, sse, "event: mood\ndata: {}\n\n", "not documented"},
		{"quiet events", "GET", "/v1/events", 200, sse, ": hello\n\n: still here\n\n", ""},
		{"broken event", "GET", "/v1/events", 200, sse, "evnt: job\n\n", "no such field"},
	} {
		t.Run(row.name, func(t *testing.T) {
			probe := &probe{TB: t}
			h := validated(probe, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for k, v := range row.header {
					w.Header()[k] = v
				}
				w.WriteHeader(row.status)
				io.WriteString(w, row.body)
			}))
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(row.method, row.target, nil))
			got := strings.Join(probe.errors, "\n")
			if (row.wrong == "") != (got == "") || !strings.Contains(got, row.wrong) {
				t.Errorf("%s %s: got %q, want an error with %q", row.method, row.target, got, row.wrong)
			}
		})
	}
}

// probe keeps the errors of a test instead of failing it.
type probe struct {
	testing.TB
	errors []string
}

func (p *probe) Errorf(format string, args ...any) {
	p.errors = append(p.errors, fmt.Sprintf(format, args...))
}

// TestOpenAPI_has_every_route compares the route table with the document, both
// ways.
func TestOpenAPI_has_every_route(t *testing.T) {
	d, err := loadAPIDoc()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+path] = true
		}
	}
	for _, pattern := range web.New(web.Config{Limits: jobs.DefaultLimits()}).Patterns() {
		pattern = strings.TrimSuffix(pattern, "{$}")
		if pattern == "/peer/" {
			continue // of package sync, between nodes
		}
		if !described[pattern] {
			t.Errorf("route %s is not in openapi.yaml", pattern)
		}
		delete(described, pattern)
	}
	for pattern := range described {
		t.Errorf("openapi.yaml has %s, which is no route", pattern)
	}
}
