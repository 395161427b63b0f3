package web

import "workmanager/jobs"

// urlForm reads application/x-www-form-urlencoded piece by piece: pairs set
// apart by &, percent-escapes, + for a blank. Bytes from 0x80 on stay as they
// are. The last pair named data counts.
type urlForm struct {
	k     *sink
	state urlState
	esc   [2]byte // digits of the escape being read
	nesc  int
	inEsc bool
	key   [5]byte // the name, as far as it can be data
	nkey  int
	data  bool // the present value is data's
	out   []byte
}

type urlState uint8

const (
	urlKey urlState = iota
	urlValue
)

// urlSpecial marks the bytes that mean something in a form.
var urlSpecial = [256]bool{'&': true, '%': true, '+': true, ';': true}

func (f *urlForm) write(p []byte) error {
	for i := 0; i < len(p); {
		c := p[i]
		if f.inEsc {
			i++
			if unhex(c) < 0 {
				return badURL("a % is not followed by two hexadecimal digits")
			}
			f.esc[f.nesc] = c
			if f.nesc++; f.nesc == 2 {
				f.inEsc, f.nesc = false, 0
				if err := f.put(byte(unhex(f.esc[0])<<4 | unhex(f.esc[1]))); err != nil {
					return err
				}
			}
			continue
		}
		if f.state == urlValue {
			if c == '%' && i+2 < len(p) {
				// A whole escape within the piece.
				hi, lo := unhexed[p[i+1]], unhexed[p[i+2]]
				if hi|lo > 0xF {
					return badURL("a % is not followed by two hexadecimal digits")
				}
				if f.data {
					f.out = append(f.out, hi<<4|lo)
					if len(f.out) >= smallBody {
						if err := f.flush(); err != nil {
							return err
						}
					}
				}
				i += 3
				continue
			}
			run := i
			for run < len(p) && !urlSpecial[p[run]] {
				run++
			}
			if run > i {
				if f.data {
					if err := f.take(p[i:run]); err != nil {
						return err
					}
				}
				i = run
				continue
			}
		}
		i++
		switch {
		case c == '%':
			f.inEsc = true
		case c == ';':
			return badURL("a bare ; stands in it; write %3B")
		case c == '&':
			if err := f.endPair(); err != nil {
				return err
			}
		case c == '=' && f.state == urlKey:
			f.beginValue()
		case c == '+':
			if err := f.put(' '); err != nil {
				return err
			}
		default:
			if err := f.put(c); err != nil {
				return err
			}
		}
	}
	return f.flush()
}

func (f *urlForm) finish() error {
	if f.inEsc {
		return badURL("it ends within a %-escape")
	}
	return f.endPair()
}

// put takes one decoded byte, of a name or of a value.
func (f *urlForm) put(c byte) error {
	if f.state == urlKey {
		if f.nkey < len(f.key) {
			f.key[f.nkey] = c
		}
		f.nkey++
		return nil
	}
	if !f.data {
		return nil
	}
	if f.out = append(f.out, c); len(f.out) >= smallBody {
		return f.flush()
	}
	return nil
}

// take takes a run of value bytes that stand for themselves.
func (f *urlForm) take(run []byte) error {
	if len(run) <= 64 {
		if f.out = append(f.out, run...); len(f.out) < smallBody {
			return nil
		}
		return f.flush()
	}
	if err := f.flush(); err != nil {
		return err
	}
	_, err := f.k.Write(run)
	return err
}

func (f *urlForm) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	_, err := f.k.Write(f.out)
	f.out = f.out[:0]
	return err
}

func (f *urlForm) beginValue() {
	f.state = urlValue
	if f.data = f.nkey == 4 && string(f.key[:4]) == "data"; f.data {
		f.out = f.out[:0]
		f.k.begin(false)
	}
}

func (f *urlForm) endPair() error {
	if f.state == urlKey && f.nkey > 0 {
		f.beginValue() // a name without = has the empty value
	}
	err := f.flush()
	f.state, f.nkey, f.data = urlKey, 0, false
	return err
}

func badURL(what string) error {
	return jobs.Invalid("body", "data", "value_error.urlencoded",
		"the urlencoded form cannot be read: %s; raw bytes go best as application/octet-stream", what)
}

// unhexed is unhex as a table, 0xFF for no digit.
var unhexed = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(unhex(byte(i)))
	}
	return t
}()

// unhex returns the value of a hexadecimal digit, -1 for another byte.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
