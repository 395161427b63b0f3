package web

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"workmanager/jobs"
)

// Programs has the program that an instance is to run, by architecture. It is
// safe for concurrent use.
type Programs interface {
	// Program returns the program for amd64 or arm64, or why there is none here:
	// a *jobs.Error.
	Program(arch string) (Program, error)
}

// Program is one build of this program. What it is read from has Size bytes,
// which have the SHA-256, in hexadecimal.
type Program struct {
	io.ReaderAt
	Size   int64
	SHA256 string
}

// maxPrograms is how many programs are sent at once, to all together: whoever
// reaches the node may ask for one.
const maxPrograms = 16

// programsRetry is how long one is asked to wait that came too many. It is about
// what sending one takes.
const programsRetry = 2 * time.Second

// programFigures count what was sent.
type programFigures struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

func newProgramFigures() programFigures {
	return programFigures{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "workmanager_worker_binary_requests_total", Help: "Requests for the program of workers, by architecture and status."}, []string{"arch", "code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "workmanager_worker_binary_bytes_total", Help: "Bytes of the program of workers that were sent, by architecture."}, []string{"arch"}),
	}
}

// program answers GET /worker/binary/{arch}. Nothing need be shown: it is what
// an instance runs before it can show anything, and is no secret.
func (s *Server) program(w http.ResponseWriter, r *http.Request) error {
	arch := r.PathValue("arch")
	if s.cfg.Programs == nil || arch != "amd64" && arch != "arm64" {
		return jobs.Errorf(jobs.CodeNoRoute, "%s: no such program; there are amd64 and arm64", clip(r.URL.Path))
	}
	count := func(code int) { s.sent.requests.WithLabelValues(arch, strconv.Itoa(code)).Inc() }
	if n := s.sending.Add(1); n > maxPrograms && r.Method != http.MethodHead {
		s.sending.Add(-1)
		count(http.StatusServiceUnavailable)
		return jobs.Errorf(jobs.CodeBusy, "the program is being sent to %d others, which is the limit", maxPrograms).Retry(programsRetry)
	}
	defer s.sending.Add(-1)
	p, err := s.cfg.Programs.Program(arch)
	if err != nil {
		said, _ := problem(err)
		count(said.Status)
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="workmanager-linux-`+arch+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", `"`+p.SHA256+`"`)
	if !oneRange(r.Header.Values("Range"), p.Size) {
		r.Header.Del("Range") // which may always be ignored
	}
	out := &steady{ResponseWriter: w, rc: controller(w)}
	http.ServeContent(out, r, "", time.Time{}, io.NewSectionReader(p, 0, p.Size))
	count(out.status)
	s.sent.bytes.WithLabelValues(arch).Add(float64(out.n))
	return nil
}

// oneRange reports whether the header asks for one range, and for one that a
// file of that size has. Several in one request would only cost.
func oneRange(given []string, size int64) bool {
	if len(given) != 1 {
		return false
	}
	spec, ok := strings.CutPrefix(given[0], "bytes=")
	first, last, two := strings.Cut(spec, "-")
	if !ok || !two || strings.Contains(spec, ",") {
		return false
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		return err == nil && n > 0
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 || from >= size {
		return false
	}
	if last == "" {
		return true
	}
	to, err := strconv.ParseInt(last, 10, 64)
	return err == nil && to >= from
}

// steady gives each write of a long answer its time, and counts. It hides what
// would send a file in one write.
type steady struct {
	http.ResponseWriter
	rc     *http.ResponseController
	status int
	n      int64
}

func (w *steady) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *steady) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(replyTimeout)) // not supported in tests without a connection
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}
