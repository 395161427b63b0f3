package web

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"

	"workmanager/jobs"
)

// form is how data stands in a body.
type form uint8

const (
	formRaw form = iota
	formMultipart
	formURL // by its type; by its first bytes it may still be raw
	formJSON
)

// formOf decides by the media type alone; parameters, such as a charset, do
// not count. The boundary of a multipart form is returned with it.
func formOf(contentType string) (f form, boundary string, err error) {
	media, _, _ := strings.Cut(contentType, ";")
	switch media = strings.TrimSpace(media); {
	case media == "" || media == "application/octet-stream":
		return formRaw, "", nil
	case strings.EqualFold(media, "application/x-www-form-urlencoded"):
		return formURL, "", nil
	case strings.EqualFold(media, "application/json"):
		return formJSON, "", nil
	case strings.EqualFold(media, "multipart/form-data"):
		_, params, err := mime.ParseMediaType(contentType)
		if err != nil {
			return 0, "", jobs.Errorf(jobs.CodeMalformed, "Content-Type: %q cannot be read", clip(contentType))
		}
		if boundary = params["boundary"]; boundary == "" {
			return 0, "", jobs.Errorf(jobs.CodeMalformed, "Content-Type: multipart/form-data without a boundary")
		}
		return formMultipart, boundary, nil
	}
	return formRaw, "", nil
}

// formOverhead is how much a form may add to its data beside the encoding:
// boundaries, headers, other fields, blanks.
const formOverhead = 1 << 20

// bodyMax returns the largest body whose data may be within max bytes.
func (f form) bodyMax(max int64) int64 {
	switch f {
	case formMultipart:
		return max + formOverhead
	case formURL:
		return 3*max + formOverhead
	case formJSON:
		return 2*max + formOverhead // base64 takes 4/3, and some characters an escape
	}
	return max
}

// checkEncoding refuses a body that is encoded in transfer.
func checkEncoding(r *http.Request) error {
	for _, v := range r.Header["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			return jobs.Errorf(jobs.CodeUnsupported, "Content-Encoding: %s is not supported; send the bytes as they are", clip(v))
		}
	}
	return nil
}

// scanner takes a body piece by piece. finish is called at its end.
type scanner interface {
	write(p []byte) error
	finish() error
}

// rawForm is the body that is the data.
type rawForm struct{ k *sink }

func (f rawForm) write(p []byte) error {
	if !f.k.seen {
		f.k.begin(false)
	}
	_, err := f.k.Write(p)
	return err
}

func (f rawForm) finish() error {
	if !f.k.seen {
		f.k.begin(false)
	}
	return nil
}

// readRaw, readURL and readMultipart read a body to its end and give its data
// to k. Their error ends the request; what is wrong with the data alone is
// told by k.check.

func readRaw(b *body, k *sink, buf []byte) error { return pump(b, buf, 0, rawForm{k}) }

// urlPrefix tells a form from raw bytes that curl sends under the same type.
const urlPrefix = "data="

func readURL(b *body, k *sink, buf []byte) error {
	n := 0
	for n < len(urlPrefix) {
		m, err := b.Read(buf[n:])
		n += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(buf[:n], []byte(urlPrefix)) {
		return pump(b, buf, n, rawForm{k})
	}
	return pump(b, buf, n, &urlForm{k: k})
}

// pump gives b to sc through buf, of which n bytes have been read already.
func pump(b *body, buf []byte, n int, sc scanner) error {
	for {
		if n > 0 {
			if err := sc.write(buf[:n]); err != nil {
				return err
			}
		}
		var err error
		if n, err = b.Read(buf); err == io.EOF {
			return sc.finish()
		} else if err != nil {
			return err
		}
	}
}

var partReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, largeRead) }}

// readMultipart takes the last part named data. It reads parts raw: NextPart
// would undo a quoted-printable encoding and so change bytes.
func readMultipart(b *body, boundary string, k *sink, buf []byte) error {
	br := partReaders.Get().(*bufio.Reader)
	br.Reset(b)
	defer func() { br.Reset(nil); partReaders.Put(br) }()
	broken := func(err error) error {
		switch {
		case b.err != nil && b.err != io.EOF:
			return b.err
		case b.n == 0:
			return nil // no body at all: the data is missing
		}
		return jobs.Errorf(jobs.CodeMalformed, "multipart/form-data: the body is broken after %d bytes: no part, or no closing boundary, where one must be", b.n)
	}
	parts := multipart.NewReader(br, boundary)
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF { // exactly: a wrapped one is a body that ends too soon
			break
		}
		if err != nil {
			return broken(err)
		}
		disposition, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		if err != nil || disposition != "form-data" || params["name"] != "data" {
			continue
		}
		_, file := params["filename"]
		k.begin(file)
		for {
			n, err := part.Read(buf)
			if _, err := k.Write(buf[:n]); err != nil {
				return err
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return broken(err)
			}
		}
	}
	for { // what follows the closing boundary counts for nothing, but must be there
		if _, err := br.Discard(largeRead); err == io.EOF {
			return nil
		} else if err != nil {
			return broken(err)
		}
	}
}

// contentType returns the header without making its name canonical first.
func contentType(r *http.Request) string {
	if v := r.Header["Content-Type"]; len(v) > 0 {
		return v[0]
	}
	return ""
}
