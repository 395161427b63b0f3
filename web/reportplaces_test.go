package web

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

// stalled is a body that never comes, until it is closed.
type stalled struct{ end chan struct{} }

func (s stalled) Read([]byte) (int, error) {
	<-s.end
	return 0, io.ErrUnexpectedEOF
}

// TestReports_are_bounded: reports that come in take a bounded part of memory, of
// one caller a quarter of it, whatever their headers say, and give it back.
func TestReports_are_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := guarded(nil, io.Discard)
		end := make(chan struct{})
		send := func(addr, token string, length int64) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/worker/report", stalled{end})
			r.RemoteAddr, r.ContentLength = addr, length
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w
		}
		const full, share = maxReportBody - 1, maxReportPieces / 4 * reportPiece / maxReportBody
		for range share - 1 {
			go send(here, "enrolled/w1", full)
		}
		go send(here, "enrolled/w1", -1) // it may be as long
		synctest.Wait()
		limited(t, send(here, "enrolled/w1", full), "1", "pieces of 16 KiB of reports", "one caller")
		limited(t, send(there, "enrolled/w1", full), "1", `"w1"`)
		limited(t, send(here, "enrolled/w2", -1), "1", "address 10.0.0.1")
		go send(here, "enrolled/w1", 1000) // small ones find room
		for _, name := range []string{"w2", "w3", "w4"} {
			for range share {
				go send("10.1.0.1"+name[1:]+":1", "enrolled/"+name, full)
			}
		}
		synctest.Wait()
		if n := s.taken[placeReport].Load(); n != 4*share*(maxReportBody/reportPiece)+1 {
			t.Errorf("%d pieces are taken", n)
		}
		go send("10.1.0.20:1", "enrolled/w5", full)
		synctest.Wait()
		w := send("10.1.0.21:1", "enrolled/w6", full)
		if w.Code != 503 || !strings.Contains(w.Body.String(), "pieces of 16 KiB of reports") || w.Header().Get("Retry-After") == "" {
			t.Errorf("when all is taken: %d %s, want a 503", w.Code, w.Body)
		}
		close(end)
		synctest.Wait()
		if n := s.taken[placeReport].Load(); n != 0 {
			t.Errorf("%d pieces are not given back", n)
		}
		for k, a := range s.accounts.of {
			if n := a.taken[placeReport].Load(); n != 0 {
				t.Errorf("%v has %d pieces", k, n)
			}
		}
	})
}
