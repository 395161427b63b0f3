package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

const maxProblemBytes = 1 << 20

// plainToTLS is what package http answers to plain HTTP at a TLS port.
const plainToTLS = "Client sent an HTTP request to an HTTPS server"

// refusal turns an answer that is no 2xx into the *jobs.Error it carries, or,
// where something between us and the node answered, into the one that fits.
func refusal(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	if err != nil {
		body = nil // the status says enough
	}
	var p api.Problem
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media != api.MediaProblem || json.Unmarshal(body, &p) != nil {
		p = api.Problem{}
		if resp.StatusCode == http.StatusBadRequest && bytes.HasPrefix(body, []byte(plainToTLS)) {
			p.Detail = "the node speaks TLS: give its URL as https://, and --ca"
		}
	}
	p.Status = resp.StatusCode
	e := fromProblem(p)
	e.RetryAfter = retryAfter(resp.Header)
	e.Written = resp.Header.Get(api.HeaderDurability) != "" // a refusal says how durable only what it has written
	return e
}

func fromProblem(p api.Problem) *jobs.Error {
	e := &jobs.Error{Code: jobs.Code(p.Code), Msg: p.Detail}
	if e.Code == "" {
		e.Code = codeOf(p.Status)
	}
	if e.Msg == "" {
		e.Msg = p.Title
	}
	if e.Msg == "" {
		e.Msg = fmt.Sprintf("the node answered %d %s", p.Status, strings.ToLower(http.StatusText(p.Status)))
	}
	for _, f := range p.Errors {
		e.Problems = append(e.Problems, jobs.Problem{Loc: f.Loc, Msg: f.Msg, Type: f.Type})
	}
	return e
}

// codeOf is for answers without a code of ours.
func codeOf(status int) jobs.Code {
	switch status {
	case http.StatusBadRequest:
		return jobs.CodeMalformed
	case http.StatusUnauthorized:
		return jobs.CodeAuth
	case http.StatusForbidden:
		return jobs.CodeForbidden
	case http.StatusNotFound:
		return jobs.CodeNoRoute
	case http.StatusMethodNotAllowed:
		return jobs.CodeMethod
	case http.StatusRequestTimeout:
		return jobs.CodeTimeout
	case http.StatusConflict:
		return jobs.CodeConflict
	case http.StatusRequestEntityTooLarge:
		return jobs.CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return jobs.CodeUnsupported
	case http.StatusUnprocessableEntity:
		return jobs.CodeInvalid
	case http.StatusTooManyRequests:
		return jobs.CodeBusy
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return jobs.CodeUnavailable
	case http.StatusInsufficientStorage:
		return jobs.CodeDiskFull
	}
	return jobs.CodeInternal
}

// retryAfter reads the header, 0 if there is none that makes sense.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
