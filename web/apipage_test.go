package web_test

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestAPIPage holds API.md to openapi.yaml, which it is made of: go test ./web
// -run APIPage -update.
func TestAPIPage(t *testing.T) {
	d, err := loadAPIDoc()
	if err != nil {
		t.Fatal(err)
	}
	want := apiPage(d.doc)
	if *update {
		if err := os.WriteFile("API.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("API.md is not what openapi.yaml says; run go test ./web -run APIPage -update")
	}
}

var methodOrder = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}

func apiPage(doc *openapi3.T) string {
	var b strings.Builder
	b.WriteString("# The API\n\n" +
		"Made from [openapi.yaml](openapi.yaml) by `go test ./web -run APIPage -update`; a running node serves that file at `/v1/openapi.yaml`\n" +
		"and shows it at `/docs`. Who may call a route stands in [routes.go](routes.go) and in the README, SECURITY.\n\n" +
		"```sh\n" +
		"curl -X PUT -F data=@README.md 'http://127.0.0.1:5000/enqueue?iterations=1000'\n" +
		"curl -X PUT --data-binary @README.md -H 'Content-Type: application/octet-stream' 'http://127.0.0.1:5000/enqueue?iterations=1000'\n" +
		"curl -d '{\"data\":\"aGVsbG8=\",\"iterations\":1000}' -H 'Content-Type: application/json' http://127.0.0.1:5000/v1/jobs\n" +
		"curl 'http://127.0.0.1:5000/v1/results?limit=10'\n" +
		"curl http://127.0.0.1:5000/v1/status\n" +
		"```\n\n" +
		"An error is `application/problem+json`: `title`, `status`, `detail` for people, `code` for programs, and `errors` with every value that\n" +
		"is wrong. The codes:\n\n| code | status |\n|---|---|\n")
	b.WriteString(codesOf(doc))
	common := commonAnswers(doc)
	b.WriteString("\nWhat most routes may answer, and is not said again below:\n\n| answer | what |\n|---|---|\n")
	for _, c := range common {
		fmt.Fprintf(&b, "| %s | %s |\n", c[0], c[1])
	}
	tags := map[string][]string{}
	var order []string
	for _, tag := range doc.Tags {
		order = append(order, tag.Name)
	}
	paths := doc.Paths.Map()
	names := slices.Sorted(func(yield func(string) bool) {
		for p := range paths {
			if !yield(p) {
				return
			}
		}
	})
	for _, path := range names {
		item := paths[path]
		for _, method := range methodOrder {
			op := item.Operations()[method]
			if op == nil {
				continue
			}
			tag := "other"
			if len(op.Tags) > 0 {
				tag = op.Tags[0]
			}
			if !slices.Contains(order, tag) {
				order = append(order, tag)
			}
			tags[tag] = append(tags[tag], operation(method, path, item, op, common))
		}
	}
	for _, tag := range order {
		if len(tags[tag]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n", tag)
		if t := doc.Tags.Get(tag); t != nil && t.Description != "" {
			fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(t.Description))
		}
		for _, text := range tags[tag] {
			b.WriteString(text)
		}
	}
	return b.String()
}

// codesOf lists the codes with what each is over HTTP.
func codesOf(doc *openapi3.T) string {
	var b strings.Builder
	for _, code := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		var of []string
		for _, item := range doc.Paths.Map() {
			for _, op := range item.Operations() {
				for status, r := range op.Responses.Map() {
					d := ""
					if r.Value.Description != nil {
						d = *r.Value.Description
					}
					if strings.Contains(d, fmt.Sprintf("`%s`", code)) && !slices.Contains(of, status) {
						of = append(of, status)
					}
				}
			}
		}
		slices.Sort(of)
		fmt.Fprintf(&b, "| `%s` | %s |\n", code, cmp.Or(strings.Join(of, ", "), "see the routes"))
	}
	return b.String()
}

// commonAnswers are the answers, status and text, of more than half of all calls.
func commonAnswers(doc *openapi3.T) [][2]string {
	n, all := map[[2]string]int{}, 0
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			all++
			for status, r := range op.Responses.Map() {
				if d := r.Value.Description; d != nil {
					n[[2]string{status, oneRow(*d)}]++
				}
			}
		}
	}
	var out [][2]string
	for a, times := range n {
		if 2*times > all {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return out
}

func operation(method, path string, item *openapi3.PathItem, op *openapi3.Operation, common [][2]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n### `%s %s`\n\n%s\n", method, path, strings.TrimSpace(op.Summary))
	if op.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(op.Description))
	}
	params := append(slices.Clone(item.Parameters), op.Parameters...)
	if len(params) > 0 {
		b.WriteString("\n| parameter | in | what |\n|---|---|---|\n")
		for _, p := range params {
			what := oneRow(p.Value.Description)
			if s := p.Value.Schema; s != nil && s.Value != nil {
				what = strings.TrimSpace(what + bounds(s.Value))
			}
			if p.Value.Required {
				what = "required. " + what
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.Value.Name, p.Value.In, what)
		}
	}
	if op.RequestBody != nil {
		var types []string
		for name := range op.RequestBody.Value.Content {
			types = append(types, "`"+name+"`")
		}
		slices.Sort(types)
		fmt.Fprintf(&b, "\nBody: %s.\n", strings.Join(types, ", "))
	}
	b.WriteString("\n| answer | what |\n|---|---|\n")
	statuses := op.Responses.Map()
	var list []string
	for s := range statuses {
		list = append(list, s)
	}
	slices.Sort(list)
	for _, s := range list {
		d := ""
		if r := statuses[s].Value; r.Description != nil {
			d = oneRow(*r.Description)
		}
		if slices.Contains(common, [2]string{s, d}) {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |\n", s, d)
	}
	return b.String()
}

// oneRow makes a text fit a cell.
func oneRow(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

// bounds says what a value may be.
func bounds(s *openapi3.Schema) string {
	var out []string
	if s.Min != nil {
		out = append(out, fmt.Sprintf("from %.0f", *s.Min))
	}
	if s.Max != nil {
		out = append(out, fmt.Sprintf("to %.0f", *s.Max))
	}
	if len(s.Enum) > 0 {
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprintf("`%v`", e))
		}
		out = append(out, strings.Join(words, ", "))
	}
	if s.Default != nil {
		out = append(out, fmt.Sprintf("by default `%v`", s.Default))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, " ") + ")"
}
