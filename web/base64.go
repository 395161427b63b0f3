package web

import (
	"encoding/base64"

	"workmanager/jobs"
)

// b64 decodes padded standard base64 piece by piece into a sink. What is no
// base64 spoils the data and is told at the end, because a later member of the
// same name may yet replace it. Line breaks are no base64 here.
type b64 struct {
	k     *sink
	carry [4]byte // a group begun
	nc    int
	ended bool // padding was read
	out   *[smallBody]byte
}

func (d *b64) begin() {
	d.nc, d.ended = 0, false
	d.k.begin(false)
}

// spoil marks the data as no base64.
func (d *b64) spoil() {
	d.k.bad = errBase64
	d.nc = 0
}

var errBase64 = jobs.Invalid("body", "data", "value_error.base64",
	"value is not a string of standard base64 with padding (RFC 4648, section 4)")

// write takes a piece; ok is false if it is no base64. The error, for data
// over the limit, ends the request.
func (d *b64) write(p []byte) (ok bool, err error) {
	if d.k.bad != nil {
		return false, nil
	}
	for d.nc > 0 && len(p) > 0 {
		if p[0] < 0x20 {
			d.spoil()
			return false, nil
		}
		d.carry[d.nc] = p[0]
		p = p[1:]
		if d.nc++; d.nc == 4 {
			d.nc = 0
			if ok, err := d.groups(d.carry[:]); !ok || err != nil {
				return ok, err
			}
		}
	}
	whole := len(p) &^ 3
	rest := p[whole:]
	for p = p[:whole]; len(p) > 0; {
		n := min(len(p), smallBody) // decodes to 3/4 of it
		if ok, err := d.groups(p[:n]); !ok || err != nil {
			return ok, err
		}
		p = p[n:]
	}
	for _, c := range rest {
		if c < 0x20 {
			d.spoil()
			return false, nil
		}
		d.carry[d.nc] = c
		d.nc++
	}
	return true, nil
}

// groups decodes whole groups of four characters.
func (d *b64) groups(p []byte) (bool, error) {
	if d.out == nil {
		d.out = smallBuffers.Get().(*[smallBody]byte)
	}
	n, err := base64.StdEncoding.Decode(d.out[:], p)
	want := len(p) / 4 * 3
	if p[len(p)-1] == '=' {
		want--
		if p[len(p)-2] == '=' {
			want--
		}
	}
	if err != nil || d.ended || n != want { // the decoder skips line breaks, which shows in n
		d.spoil()
		return false, nil
	}
	d.ended = p[len(p)-1] == '='
	_, err = d.k.Write(d.out[:n])
	return true, err
}

// finish is called at the end of the string.
func (d *b64) finish() {
	if d.nc != 0 && d.k.bad == nil {
		d.spoil()
	}
}

// release gives the decoder's memory back.
func (d *b64) release() {
	if d.out != nil {
		smallBuffers.Put(d.out)
		d.out = nil
	}
}
