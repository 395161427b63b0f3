package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"workmanager/jobs"
	"workmanager/web/api"
)

// Data opens a job's data at its start. It is called again for each request
// that has to be made. The size is -1 where it is not known.
type Data func() (body io.ReadCloser, size int64, err error)

// Bytes is data in memory.
func Bytes(b []byte) Data {
	return func() (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
}

// File is the data in a file. A file that is no regular one, such as a named
// pipe, can be opened once only and is no good here.
func File(name string) Data {
	return func() (io.ReadCloser, int64, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s is no regular file", name)
		}
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, st.Size(), nil
	}
}

// EnqueueOptions is what may be said of a job beside its data and iterations.
type EnqueueOptions struct {
	Key      string // Idempotency-Key; "" is a random one
	Priority int    // 0..jobs.MaxPriority
	Keep     int    // checkpoints to keep, 0..jobs.MaxKeep
	Ack      jobs.Ack
}

// Enqueue submits one job and returns its ID and what was promised of it. The
// data is streamed, so its size costs no memory here.
func (c *Client) Enqueue(ctx context.Context, data Data, iterations uint64, o EnqueueOptions) (jobs.ID, jobs.Durability, error) {
	key := o.Key
	if key == "" {
		k, err := c.newKey()
		if err != nil {
			return jobs.ID{}, jobs.Durability{}, err
		}
		key = k
	}
	r := request{header: http.Header{api.HeaderIdempotencyKey: {key}}, query: url.Values{}}
	if o.Ack != jobs.AckDefault {
		r.query.Set("ack", string(o.Ack))
	}
	if o.Keep != 0 {
		r.query.Set("checkpoints", strconv.Itoa(o.Keep))
	}
	if o.Priority != 0 {
		// The old route knows no priority.
		r.method, r.path = http.MethodPost, "/v1/jobs"
		r.header.Set("Content-Type", "application/json")
		r.data = asJSON(data, iterations, o.Priority)
		out, head, err := get[api.Job](ctx, c, r)
		return submitted(out.ID, head, err)
	}
	r.method, r.path = http.MethodPut, "/enqueue"
	r.query.Set("iterations", strconv.FormatUint(iterations, 10))
	r.header.Set("Content-Type", "application/octet-stream")
	r.data = data
	empty, err := isEmpty(data)
	if err != nil {
		return jobs.ID{}, jobs.Durability{}, err
	}
	if empty {
		// An empty raw body is taken for a mistake; an empty file part is not.
		r.data, r.header["Content-Type"] = emptyFile()
	}
	out, head, err := get[api.WorkID](ctx, c, r)
	return submitted(out.ID, head, err)
}

func submitted(s string, head http.Header, err error) (jobs.ID, jobs.Durability, error) {
	if err != nil {
		return jobs.ID{}, jobs.Durability{}, err
	}
	id, err := jobs.ParseID(s)
	if err != nil {
		return jobs.ID{}, jobs.Durability{}, fmt.Errorf("read the answer to a submit: %w", err)
	}
	return id, durability(head.Get(api.HeaderDurability), head.Get(api.HeaderDurabilityReason)), nil
}

// asJSON is data as the body of POST /v1/jobs, encoded as it is read.
func asJSON(data Data, iterations uint64, priority int) Data {
	return func() (io.ReadCloser, int64, error) {
		body, size, err := data()
		if err != nil {
			return nil, 0, err
		}
		head := fmt.Sprintf(`{"iterations":%d,"priority":%d,"data":"`, iterations, priority)
		const tail = `"}`
		if size >= 0 {
			size = (size+2)/3*4 + int64(len(head)+len(tail))
		}
		text := &base64Reader{src: body}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(head), text, strings.NewReader(tail)), body}, size, nil
	}
}

// base64Reader encodes what it reads.
type base64Reader struct {
	src  io.Reader
	raw  [3 << 10]byte
	text [4 << 10]byte
	rest []byte
	err  error
}

func (b *base64Reader) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		n, err := io.ReadFull(b.src, b.raw[:])
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		b.err = err
		base64.StdEncoding.Encode(b.text[:], b.raw[:n])
		b.rest = b.text[:base64.StdEncoding.EncodedLen(n)]
		if n == 0 {
			return 0, b.err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func isEmpty(data Data) (bool, error) {
	body, size, err := data()
	if err != nil {
		return false, err
	}
	defer body.Close()
	if size >= 0 {
		return size == 0, nil
	}
	var one [1]byte
	n, err := io.ReadFull(body, one[:])
	if n == 0 && err != nil && err != io.EOF {
		return false, fmt.Errorf("read the data: %w", err)
	}
	return n == 0, nil
}

// emptyFile is a form with one empty file, and its media type.
func emptyFile() (Data, []string) {
	const boundary = "workmanager-no-data-here"
	return Bytes([]byte("--" + boundary + "\r\n" +
		"Content-Disposition: form-data; name=\"data\"; filename=\"empty\"\r\n\r\n\r\n" +
		"--" + boundary + "--\r\n")), []string{"multipart/form-data; boundary=" + boundary}
}

func durability(word, reason string) jobs.Durability {
	return jobs.Durability{Both: word == "both", Reason: reason}
}
