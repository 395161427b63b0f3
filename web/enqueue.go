package web

import (
	"encoding/hex"
	"net/http"

	"workmanager/jobs"
)

// enqueue answers PUT /enqueue: one job, and exactly {"Work ID":"<uuid>"}. It
// is the hot route of small jobs, so the answer is built by hand.
func (s *Server) enqueue(w http.ResponseWriter, r *http.Request) error {
	if s.stopping() {
		return errStopping()
	}
	if err := checkEncoding(r); err != nil {
		return err
	}
	sub, err := s.dataOnly(w, r, "")
	if err != nil {
		return err
	}
	out, err := s.enqueueOne(r, sub)
	if err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = headerJSON
	h["Content-Length"] = workIDLength
	setDurability(h, out.Durability)
	var buf [workIDBytes]byte
	b := append(buf[:0], `{"Work ID":"`...)
	b = appendID(b, out.Job.ID)
	_, _ = w.Write(append(b, `"}`...)) // a client that has gone is no error
	return nil
}

const workIDBytes = len(`{"Work ID":"`) + 36 + len(`"}`)

var workIDLength = []string{"50"}

// appendID appends the canonical form of id.
func appendID(b []byte, id jobs.ID) []byte {
	b = hex.AppendEncode(b, id[:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[8:10])
	b = append(b, '-')
	return hex.AppendEncode(b, id[10:])
}
