package wire

// What is written and what is read is told once, member by member, and done by a
// codec: so the two cannot differ.

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"workmanager/jobs"
)

// codec writes values behind b, or reads them from b. Text that is not what would
// be written spoils it: then nothing is left to read, and what was read means
// nothing.
type codec struct {
	b       []byte
	reading bool
	at      int // what is read next
	spoilt  bool
}

func (c *codec) spoil() { c.at, c.spoilt = len(c.b), true }

// left is what is not read yet.
func (c *codec) left() []byte { return c.b[c.at:] }

// end reports whether all was read, and was right. A line may end with it.
func (c *codec) end() bool { return !c.spoilt && (c.at == len(c.b) || string(c.left()) == "\n") }

// next reads this text if it is next.
func (c *codec) next(text string) bool {
	end := c.at + len(text)
	if end > len(c.b) || string(c.b[c.at:end]) != text {
		return false
	}
	c.at = end
	return true
}

// lit is text that always stands here.
func (c *codec) lit(text string) {
	if !c.reading {
		c.b = append(c.b, text...)
	} else if !c.next(text) {
		c.spoil()
	}
}

// has is text that stands here, or not: that is written, or returned.
func (c *codec) has(text string, is bool) bool {
	if c.reading {
		return c.next(text)
	}
	if is {
		c.b = append(c.b, text...)
	}
	return is
}

// member is the name of a member. An optional one that is zero is not there.
func (c *codec) member(name string, zero bool, kind presence) bool {
	if kind == optional {
		return c.has(name, !zero)
	}
	c.lit(name)
	return true
}

type presence bool

const (
	required presence = false
	optional presence = true
)

// list is a list of n items, of any number when reading.
func (c *codec) list(name string, n int, item func(i int)) {
	c.lit(name + "[")
	for i := 0; c.reading || i < n; i++ {
		if c.reading && i == 0 && c.next("]") {
			return
		}
		if i > 0 && !c.has(",", true) {
			break
		}
		item(i)
	}
	c.lit("]")
}

// hex is the digits of v, read in upper or lower case.
func (c *codec) hex(name string, v []byte) {
	c.lit(name)
	if !c.reading {
		c.b = hex.AppendEncode(c.b, v)
		return
	}
	end := c.at + hex.EncodedLen(len(v))
	if end > len(c.b) {
		c.spoil()
	} else if _, err := hex.Decode(v, c.b[c.at:end]); err != nil {
		c.spoil()
	} else {
		c.at = end
	}
}

func (c *codec) id(name string, id *jobs.ID) {
	c.hex(name, id[:4])
	c.hex("-", id[4:6])
	c.hex("-", id[6:8])
	c.hex("-", id[8:10])
	c.hex("-", id[10:])
}

// number is a whole one, read if it is of the type. A fraction or an exponent is
// not what follows it.
func number[T int | uint16 | uint64](c *codec, name string, v *T, kind presence) {
	if !c.member(name, *v == 0, kind) {
		return
	}
	if !c.reading {
		if *v < 0 {
			c.b = strconv.AppendInt(c.b, int64(*v), 10)
		} else {
			c.b = strconv.AppendUint(c.b, uint64(*v), 10)
		}
		return
	}
	text := c.left()
	n := digits(text)
	if n == 0 || n > 19 || n > 1 && text[0] == '0' { // 19 digits are below 2^64
		c.spoil()
		return
	}
	var u uint64
	for _, d := range text[:n] {
		u = 10*u + uint64(d-'0')
	}
	c.at += n
	if *v = T(u); *v < 0 || uint64(*v) != u {
		c.spoil()
	}
}

// digits returns with how many digits text begins.
func digits(text []byte) int {
	for i, d := range text {
		if d < '0' || d > '9' {
			return i
		}
	}
	return len(text)
}

// float is a finite number, written and read without an exponent.
func (c *codec) float(name string, v *float64, kind presence) {
	if !c.member(name, *v == 0, kind) {
		return
	}
	if !c.reading {
		c.b = strconv.AppendFloat(c.b, *v, 'f', -1, 64)
		return
	}
	text := c.left()
	minus := 0
	if len(text) > 0 && text[0] == '-' {
		minus = 1
	}
	whole := digits(text[minus:])
	n := minus + whole
	wrong := whole == 0 || whole > 1 && text[minus] == '0'
	if n < len(text) && text[n] == '.' {
		fraction := digits(text[n+1:])
		n += 1 + fraction
		wrong = wrong || fraction == 0
	}
	if wrong {
		c.spoil()
		return
	}
	var err error
	if *v, err = strconv.ParseFloat(string(text[:n]), 64); err != nil {
		c.spoil()
		return
	}
	c.at += n
}

// text is a string; one that needs an escape is not read.
func (c *codec) text(name string, v *string, kind presence) {
	if !c.member(name, *v == "", kind) {
		return
	}
	if !c.reading {
		c.b = appendString(c.b, *v)
		return
	}
	c.lit(`"`)
	n := plain(c.left())
	*v = string(c.left()[:n])
	c.at += n
	c.lit(`"`)
}

// plain returns how many of the first characters stand for themselves in a
// string.
func plain[T string | []byte](s T) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

func appendString(b []byte, s string) []byte {
	if plain(s) < len(s) {
		text, _ := json.Marshal(s) // never fails
		return append(b, text...)
	}
	b = append(append(b, '"'), s...)
	return append(b, '"')
}

// texts is a list of strings.
func (c *codec) texts(name string, v *[]string) {
	c.list(name, len(*v), func(i int) {
		if c.reading {
			*v = append(*v, "")
		}
		c.text("", &(*v)[i], required)
	})
}

// word is one of some, which are given with the quote behind them.
func word[T ~uint8](c *codec, name string, words []string, v *T) {
	c.lit(name)
	if !c.reading {
		c.b = append(c.b, words[*v]...)
		return
	}
	for i := range words {
		if c.next(words[i]) {
			*v = T(i)
			return
		}
	}
	c.spoil()
}
