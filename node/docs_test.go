package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs holds the pages to what is there: their links lead somewhere, and the
// tests that they name exist.
func TestDocs(t *testing.T) {
	root := ".."
	var pages []string
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case strings.HasSuffix(name, ".md"):
			pages = append(pages, name)
		case strings.HasSuffix(name, "_test.go"):
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllSubmatch(text, -1) {
				tests[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)]*)?\)`)
	named := regexp.MustCompile("`(Test\\w+)`")
	links, names := 0, 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			there, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s: the link to %s leads nowhere: %v", page, m[1], err)
			}
			if m[2] != "" && !anchors(there)[m[2]] {
				t.Errorf("%s: the link to %s%s leads to no heading", page, m[1], m[2])
			}
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if names++; !tests[m[1]] {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
	}
	if links < 3 || names < 20 {
		t.Errorf("%d links and %d tests found in %q: this test looks in the wrong place", links, names, pages)
	}
}

// anchors are the headings of a page, as links name them.
func anchors(page []byte) map[string]bool {
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(page), -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out["#"+strings.ReplaceAll(text, " ", "-")] = true
	}
	return out
}
