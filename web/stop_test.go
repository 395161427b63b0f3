package web_test

import (
	"testing"
	"time"
)

// pouring is a body without an end; began is closed when some of it was taken.
type pouring struct {
	began chan struct{}
	n     int
}

func (e *pouring) Read(p []byte) (int, error) {
	if e.n++; e.n == 4 {
		close(e.began)
	}
	return len(p), nil
}

// TestStop_a_body_on_its_way_is_answered: who sends while the node stops is told
// so, and does not find the connection reset.
func TestStop_a_body_on_its_way_is_answered(t *testing.T) {
	t.Parallel()
	for i := range 30 {
		f := &fake{}
		srv := f.server(t)
		s := serve(t, srv)
		body := &pouring{began: make(chan struct{})}
		done := make(chan error, 1)
		var got answer
		go func() {
			var err error
			got, err = trySend(t.Context(), s, "PUT", "/enqueue?iterations=1", body)
			done <- err
		}()
		<-body.began
		time.AfterFunc(time.Duration(i)*100*time.Microsecond, srv.Stop)
		if err := <-done; err != nil {
			t.Fatalf("try %d: %v, want an answer", i, err)
		}
		if got.status != 503 && got.status != 413 { // the latter if it was quick
			t.Errorf("try %d: %d %s", i, got.status, got.body)
		}
	}
}
