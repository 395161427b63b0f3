package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"

	"workmanager/jobs"
)

// assets are the pages and what they load: ours by hand and without a build
// step, and in lib the libraries, made by web/lib-build.
//
//go:embed assets
var assets embed.FS

// mediaTypes are the types of assets by extension. They are written here, not
// asked of the system: its tables differ, and a wrong one stops a script.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
	"":      "text/plain; charset=utf-8",
}

// pagePolicy is the Content-Security-Policy of the pages: nothing but our own
// files, no inline script or style, and no string ever becomes markup.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types workmanager"

// document is a file of the binary. It never changes while the process runs,
// so its entity tag is computed once and a client asks only whether it is new.
type document struct {
	body      []byte
	mediaType string
	etag      string
	length    string
}

// newDocument returns the document of body.
func newDocument(mediaType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{body: body, mediaType: mediaType, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, length: strconv.Itoa(len(body))}
}

// ServeHTTP answers 304 if the client has this document, else all of it.
func (d document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", d.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if holds(r.Header.Values("If-None-Match"), d.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Length", d.length)
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(d.body) // a client that has gone is no error
	}
}

// holds reports whether an If-None-Match names etag. The comparison is the
// weak one, as RFC 9110 has it for this header: a proxy may have weakened ours.
func holds(ifNoneMatch []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(ifNoneMatch, ","), ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == etag || tag == "*" {
			return true
		}
	}
	return false
}

// pages are the assets by their path below the folder.
var pages = loadPages()

func loadPages() map[string]document {
	found := map[string]document{}
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		mediaType := mediaTypes[path.Ext(name)]
		if mediaType == "" {
			return fmt.Errorf("%s has no known media type", name)
		}
		body, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		found[strings.TrimPrefix(name, "assets/")] = newDocument(mediaType, body)
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("web: the assets are not in the binary: %v", err))
	}
	return found
}

// dashboard serves the page at /. It reads the same snapshot as every other
// view of the node, over /v1/events.
func (s *Server) dashboard() http.Handler { return pages["index.html"] }

// asset serves one file of the pages. The pages themselves have routes of
// their own.
func (s *Server) asset(w http.ResponseWriter, r *http.Request) error {
	name := strings.TrimPrefix(r.URL.Path, "/assets/")
	d, ok := pages[name]
	if !ok || path.Ext(name) == ".html" {
		return jobs.Errorf(jobs.CodeNoRoute, "%s: no such file", clip(r.URL.Path))
	}
	d.ServeHTTP(w, r)
	return nil
}
