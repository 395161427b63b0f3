package web

import (
	"bytes"
	"unicode/utf8"

	"workmanager/jobs"
)

// jsonScan reads one JSON object piece by piece, in memory that does not grow
// with it: the member named data is decoded from base64 into a sink as it
// comes, members the caller wants are kept as raw text, and the rest is only
// checked to be JSON. It accepts what encoding/json accepts, but for nesting
// deeper than maxDepth; names are compared exactly, and of a repeated name the
// last counts.
type jsonScan struct {
	data b64
	want func(name []byte) bool        // whether to keep this member, nil for none
	got  func(name string, raw []byte) // a member that was wanted

	state  jsonState
	stack  []byte // what is open: { or [
	inKey  bool   // the string being read is a member's name
	rest   string // what is left of a literal
	hex    uint32 // the \u escape being read
	nhex   int
	name   []byte // the member's name, decoded, as far as it can matter
	member memberKind
	raw    []byte // the wanted member's text
	err    error
}

type memberKind uint8

const (
	memberSkip memberKind = iota
	memberData
	memberKeep
)

// Bounds of what a scan holds in memory.
const (
	maxDepth = 1000
	maxName  = 64
	maxRaw   = 2 << 10 // of a wanted member's text; longer is cut, and then wrong
)

type jsonState uint8

const (
	stTop        jsonState = iota // before the object
	stKeyOrEnd                    // behind {
	stKey                         // behind a comma in an object
	stColon                       // behind a name
	stValue                       // behind a colon, or a comma in an array
	stValueOrEnd                  // behind [
	stAfter                       // behind a value
	stString
	stEscape
	stHex
	stMinus
	stZero
	stDigits
	stDot
	stFraction
	stE
	stESign
	stExponent
	stLiteral
	stEnd // behind the object
)

// syntaxError tells text that is no JSON object from one with a wrong value.
type syntaxError struct{ e *jobs.Error }

func (s *syntaxError) Error() string { return s.e.Msg }
func (s *syntaxError) Unwrap() error { return s.e }

func errSyntax(what string) error {
	return &syntaxError{jobs.Errorf(jobs.CodeMalformed, "this is no JSON object: %s", what)}
}

// finish is called at the end of the text.
func (p *jsonScan) finish() error {
	if p.err == nil && p.state != stEnd {
		p.err = errSyntax("it ends too soon")
	}
	return p.err
}

// write takes the next piece. After an error every further call returns it.
func (p *jsonScan) write(c []byte) error {
	for i := 0; i < len(c) && p.err == nil; {
		if p.state == stString {
			i += p.str(c[i:])
			continue
		}
		b := c[i]
		if p.number(b) {
			i++
			continue
		}
		i++
		p.step(b)
	}
	return p.err
}

// keep adds to the raw text of a wanted member.
func (p *jsonScan) keep(b ...byte) {
	if p.member == memberKeep && len(p.raw) <= maxRaw {
		p.raw = append(p.raw, b[:min(len(b), maxRaw+1-len(p.raw))]...)
	}
}

// str takes bytes of a string up to its end, an escape or the piece's end, and
// returns how many.
func (p *jsonScan) str(c []byte) int {
	n := 0
	if !p.inKey && p.member == memberData && len(p.stack) == 1 {
		// The long one: find the end of the run at memory speed. base64
		// decoding below refuses every byte that JSON refuses in a string.
		n = bytes.IndexByte(c, '"')
		if n < 0 {
			n = len(c)
		}
		if e := bytes.IndexByte(c[:n], '\\'); e >= 0 {
			n = e
		}
		if ok, err := p.data.write(c[:n]); err != nil {
			p.err = err
			return n
		} else if !ok {
			for _, b := range c[:n] {
				if b < 0x20 {
					p.err = errSyntax("a control character stands in a string")
					return n
				}
			}
		}
	} else {
		for n < len(c) && c[n] >= 0x20 && c[n] != '"' && c[n] != '\\' {
			n++
		}
		p.text(c[:n])
	}
	if n == len(c) {
		return n
	}
	switch b := c[n]; b {
	case '"':
		p.keep(b)
		p.endString()
	case '\\':
		p.keep(b)
		p.state = stEscape
	default:
		p.err = errSyntax("a control character stands in a string")
	}
	return n + 1
}

// text takes bytes of a string that is not data, as they stand.
func (p *jsonScan) text(b []byte) {
	if !p.naming() {
		p.keep(b...)
	} else if room := maxName + 1 - len(p.name); room > 0 {
		p.name = append(p.name, b[:min(room, len(b))]...)
	}
}

// naming reports whether the string being read names a member of the object.
func (p *jsonScan) naming() bool { return p.inKey && len(p.stack) == 1 }

// char takes one character that an escape stood for.
func (p *jsonScan) char(r rune) {
	switch {
	case p.naming():
		if len(p.name) <= maxName {
			p.name = utf8.AppendRune(p.name, r)
		}
	case !p.inKey && p.member == memberData && len(p.stack) == 1:
		if r < 0x20 || r >= utf8.RuneSelf {
			p.data.spoil()
			return
		}
		if _, err := p.data.write([]byte{byte(r)}); err != nil {
			p.err = err
		}
	}
}

func (p *jsonScan) endString() {
	if p.inKey {
		p.inKey = false
		p.state = stColon
		if len(p.stack) == 1 {
			p.chooseMember()
		}
		return
	}
	if p.member == memberData && len(p.stack) == 1 {
		p.data.finish()
	}
	p.endValue()
}

// chooseMember decides what to do with the member whose name has been read.
func (p *jsonScan) chooseMember() {
	p.raw = p.raw[:0]
	switch {
	case string(p.name) == "data":
		p.member = memberData
	case p.want != nil && p.want(p.name):
		p.member = memberKeep
	default:
		p.member = memberSkip
	}
}

// step takes one byte outside strings and numbers.
func (p *jsonScan) step(b byte) {
	blank := b == ' ' || b == '\t' || b == '\r' || b == '\n'
	switch p.state {
	case stEscape:
		p.keep(b)
		p.escape(b)
	case stHex:
		p.keep(b)
		p.hexDigit(b)
	case stLiteral:
		p.keep(b)
		if b != p.rest[0] {
			p.err = errSyntax("a word is not true, false or null")
			return
		}
		if p.rest = p.rest[1:]; p.rest == "" {
			p.endValue()
		}
	case stTop:
		switch {
		case blank:
		case b == '{':
			p.push(b)
		default:
			p.err = errSyntax("it does not begin with {")
		}
	case stEnd:
		if !blank {
			p.err = errSyntax("something follows it")
		}
	default:
		if len(p.stack) > 1 || p.state == stValue || p.state == stValueOrEnd {
			if p.member == memberKeep && !(blank && len(p.raw) == 0) {
				p.keep(b)
			}
		}
		if !blank {
			p.structure(b)
		}
	}
}

// structure takes a byte that opens, parts or closes values.
func (p *jsonScan) structure(b byte) {
	switch p.state {
	case stKeyOrEnd, stKey:
		switch {
		case b == '"':
			p.inKey, p.state = true, stString
			if len(p.stack) == 1 {
				p.name = p.name[:0]
			}
		case b == '}' && p.state == stKeyOrEnd:
			p.pop()
		default:
			p.err = errSyntax("a member's name must stand in quotes")
		}
	case stColon:
		if b != ':' {
			p.err = errSyntax("a colon is missing behind a name")
			return
		}
		p.state = stValue
	case stValueOrEnd:
		if b == ']' {
			p.pop()
			return
		}
		p.value(b)
	case stValue:
		p.value(b)
	case stAfter:
		top := p.stack[len(p.stack)-1]
		switch {
		case b == ',' && top == '{':
			p.state = stKey
		case b == ',' && top == '[':
			p.state = stValue
		case b == '}' && top == '{', b == ']' && top == '[':
			p.pop()
		default:
			p.err = errSyntax("a comma or a bracket is missing behind a value")
		}
	}
}

// value takes the first byte of a value.
func (p *jsonScan) value(b byte) {
	if p.member == memberData && len(p.stack) == 1 {
		p.data.begin()
		if b != '"' {
			p.data.spoil()
		}
	}
	switch {
	case b == '"':
		p.state = stString
	case b == '{' || b == '[':
		p.push(b)
	case b == '-':
		p.state = stMinus
	case b == '0':
		p.state = stZero
	case b >= '1' && b <= '9':
		p.state = stDigits
	case b == 't':
		p.state, p.rest = stLiteral, "rue"
	case b == 'f':
		p.state, p.rest = stLiteral, "alse"
	case b == 'n':
		p.state, p.rest = stLiteral, "ull"
	default:
		p.err = errSyntax("a value is missing")
	}
}

func (p *jsonScan) push(b byte) {
	if len(p.stack) >= maxDepth {
		p.err = errSyntax("it is nested too deeply")
		return
	}
	p.stack = append(p.stack, b)
	if b == '{' {
		p.state = stKeyOrEnd
	} else {
		p.state = stValueOrEnd
	}
}

func (p *jsonScan) pop() {
	p.stack = p.stack[:len(p.stack)-1]
	if len(p.stack) == 0 {
		p.state = stEnd
		return
	}
	p.endValue()
}

// endValue is called behind every value; one of the object itself is handed on.
func (p *jsonScan) endValue() {
	p.state = stAfter
	if len(p.stack) == 1 && p.member == memberKeep {
		p.got(string(p.name), p.raw)
		p.member = memberSkip
	}
}

// escape takes the byte behind a backslash.
func (p *jsonScan) escape(b byte) {
	p.state = stString
	switch b {
	case '"', '\\', '/':
		p.char(rune(b))
	case 'b':
		p.char('\b')
	case 'f':
		p.char('\f')
	case 'n':
		p.char('\n')
	case 'r':
		p.char('\r')
	case 't':
		p.char('\t')
	case 'u':
		p.state, p.hex, p.nhex = stHex, 0, 0
	default:
		p.err = errSyntax("an escape in a string is unknown")
	}
}

func (p *jsonScan) hexDigit(b byte) {
	d := unhex(b)
	if d < 0 {
		p.err = errSyntax("a \\u is not followed by four hexadecimal digits")
		return
	}
	p.hex = p.hex<<4 | uint32(d)
	if p.nhex++; p.nhex == 4 {
		p.state = stString
		p.char(rune(p.hex)) // half a pair becomes U+FFFD: no name of ours has any
	}
}

// number takes b if a number is being read and goes on with it, or ends the
// number and leaves b.
func (p *jsonScan) number(b byte) bool {
	digit := b >= '0' && b <= '9'
	next := p.state
	switch p.state {
	case stMinus:
		switch {
		case b == '0':
			next = stZero
		case digit:
			next = stDigits
		default:
			p.err = errSyntax("a number has no digits")
			return true
		}
	case stZero, stDigits:
		switch {
		case digit && p.state == stDigits:
		case b == '.':
			next = stDot
		case b == 'e' || b == 'E':
			next = stE
		default:
			p.endValue()
			return false
		}
	case stDot, stFraction:
		switch {
		case digit:
			next = stFraction
		case (b == 'e' || b == 'E') && p.state == stFraction:
			next = stE
		case p.state == stFraction:
			p.endValue()
			return false
		default:
			p.err = errSyntax("a number has no digits behind its point")
			return true
		}
	case stE, stESign, stExponent:
		switch {
		case digit:
			next = stExponent
		case (b == '+' || b == '-') && p.state == stE:
			next = stESign
		case p.state == stExponent:
			p.endValue()
			return false
		default:
			p.err = errSyntax("a number has no exponent behind its e")
			return true
		}
	default:
		return false
	}
	p.keep(b)
	p.state = next
	return true
}
