package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"workmanager/jobs"
)

// request is one call, whatever node it goes to and however often.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	data         Data // nil: no body
	patient      bool // the answer may take as long as a long poll
	decode       func(io.Reader) error
}

// do makes the call and gives a 2xx body to r.decode. Anything else comes
// back as a *jobs.Error, as ErrUnreachable, or as the error of ctx.
func (c *Client) do(ctx context.Context, r request) (http.Header, error) {
	c.init()
	if c.baseErr != nil {
		return nil, c.baseErr
	}
	t := &try{c: c, at: int(c.good.Load()), decode: r.decode}
	var body any
	if r.data != nil {
		body = retryablehttp.ReaderFunc(t.open(r.data))
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, r.method, t.url(r.path, r.query), body)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if token, err := c.shown(ctx, r.path); err != nil {
		return nil, err
	} else if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if req.ContentLength >= expectBytes {
		// A body over the limit is refused before it is sent.
		req.Header.Set("Expect", "100-continue")
	}
	req.SetResponseHandler(t.read)
	resp, err := c.retrier(t, r).Do(req)
	if resp != nil {
		defer resp.Body.Close()
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case t.local() != nil:
		return nil, t.local()
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, strings.Join(c.URLs, ", "), tidy(err))
	case t.refusal != nil: // read by the handler
		if enrolling := r.path == enrolPath || r.path == enrolInstancePath; c.Worker != "" && !enrolling && jobs.CodeOf(t.refusal) == jobs.CodeAuth {
			c.forget()
		}
		return nil, t.refusal
	case resp.StatusCode/100 != 2: // the last of many, not given to the handler
		return nil, refusal(resp)
	}
	c.good.Store(int32(t.at))
	return resp.Header, nil
}

// expectBytes is from where on a body waits for the node's leave.
const expectBytes = 1 << 20

func (c *Client) retrier(t *try, r request) *retryablehttp.Client {
	least, most := c.waits()
	h := c.quick
	if r.patient {
		h = c.patient
	}
	return &retryablehttp.Client{
		HTTPClient:   h,
		RetryWaitMin: least,
		RetryWaitMax: most,
		RetryMax:     c.rounds()*len(c.bases) - 1,
		CheckRetry:   t.again,
		Backoff:      t.backoff,
		PrepareRetry: t.next,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// try is the state of one call over all its requests.
type try struct {
	c       *Client
	at      int // index of the base in use
	failed  int // requests that have failed
	decode  func(io.Reader) error
	refusal error

	localErr atomic.Pointer[error] // ours, such as a file that cannot be read: no node can help
}

func (t *try) local() error {
	if p := t.localErr.Load(); p != nil {
		return *p
	}
	return nil
}

func (t *try) url(path string, query url.Values) string {
	u := t.c.bases[t.at].JoinPath(path)
	u.RawQuery = query.Encode()
	return u.String()
}

// roundOver reports whether every node has failed as often as the others.
func (t *try) roundOver() bool { return t.failed%len(t.c.bases) == 0 }

// again decides after each request whether there is another one.
func (t *try) again(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err := t.local(); err != nil {
		return false, err
	}
	if t.refusal != nil { // asked again, after read
		return false, nil
	}
	if err != nil {
		t.failed++
		if resp != nil { // a broken answer; the library would look at its status only
			return true, nil
		}
		again, _ := retryablehttp.DefaultRetryPolicy(ctx, nil, err)
		return again || !t.roundOver(), nil
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		t.failed++
		return !t.roundOver() || retryAfter(resp.Header) <= MaxRetryAfter, nil
	case http.StatusInternalServerError, http.StatusInsufficientStorage:
		// Time will not mend it, but the other node may be well.
		t.failed++
		return !t.roundOver(), nil
	}
	return false, nil
}

// backoff is nothing before a node that has not been asked in this round.
func (t *try) backoff(least, most time.Duration, _ int, resp *http.Response) time.Duration {
	if !t.roundOver() {
		return 0
	}
	return retryablehttp.DefaultBackoff(least, most, t.failed/len(t.c.bases)-1, resp)
}

// next turns the request to the next node.
func (t *try) next(req *http.Request) error {
	from := t.c.bases[t.at]
	t.at = (t.at + 1) % len(t.c.bases)
	to := t.c.bases[t.at]
	u := *req.URL
	u.Scheme, u.Host, u.User = to.Scheme, to.Host, to.User
	u.Path = to.JoinPath(strings.TrimPrefix(u.Path, strings.TrimSuffix(from.Path, "/"))).Path
	req.URL, req.Host = &u, u.Host
	return nil
}

// read is given every answer that is not to be tried again for its status.
func (t *try) read(resp *http.Response) error {
	if resp.StatusCode/100 != 2 {
		t.refusal = refusal(resp)
		return nil
	}
	body := io.LimitReader(resp.Body, maxBodyBytes)
	if t.decode != nil {
		if err := t.decode(body); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

// open gives the library the body of each request, and keeps our own errors
// apart from the network's.
func (t *try) open(data Data) func() (io.Reader, error) {
	return func() (io.Reader, error) {
		body, size, err := data()
		if err != nil {
			t.localErr.Store(&err)
			return nil, err
		}
		b := &sizedBody{ReadCloser: body, t: t}
		if size <= 0 {
			return b, nil
		}
		return &knownBody{sizedBody: b, size: int(size)}, nil
	}
}

// sizedBody notes why the data could not be read. What a read says after the
// transport has closed it, since the answer came early, means nothing.
type sizedBody struct {
	io.ReadCloser
	t      *try
	closed atomic.Bool
}

func (b *sizedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !b.closed.Load() {
		local := fmt.Errorf("read the data: %w", err)
		b.t.localErr.Store(&local)
	}
	return n, err
}

func (b *sizedBody) Close() error {
	b.closed.Store(true)
	return b.ReadCloser.Close()
}

// knownBody tells the library its length, which becomes the Content-Length.
type knownBody struct {
	*sizedBody
	size int
}

func (b *knownBody) Len() int { return b.size }

// tidy takes the method and URL off an error of package http: they are said
// already, and a URL may hold what should not be shown.
func tidy(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
