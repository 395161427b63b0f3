package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

const (
	// NoticeInterval is how often the instance metadata service is asked.
	NoticeInterval = 5 * time.Second
	// answerTime is what one question may take: the service is on this machine's
	// host, and where it is not nobody answers.
	answerTime = time.Second

	actionPath = "spot/instance-action"
	probePath  = "instance-id"
	maxAnswer  = 4 << 10
)

// Notices asks the instance metadata service of this machine, at
// AWS_EC2_METADATA_SERVICE_ENDPOINT if that is set. It is safe for concurrent use.
type Notices struct {
	client   *imds.Client
	interval time.Duration
}

// NewNotices returns Notices that ask every interval, 0 being NoticeInterval.
// It asks nothing yet.
func NewNotices(interval time.Duration) *Notices {
	if interval <= 0 {
		interval = NoticeInterval
	}
	return &Notices{interval: interval, client: imds.New(imds.Options{
		HTTPClient:     &http.Client{Timeout: answerTime},
		Retryer:        aws.NopRetryer{}, // the next question is the next try
		EnableFallback: aws.FalseTernary, // by token only, which no proxy can be made to fetch
	})}
}

// Available reports whether the service answers, within a second or so.
func (n *Notices) Available(ctx context.Context) bool {
	_, err := n.read(ctx, probePath)
	return err == nil
}

// Interruption is what will be done to this instance, and when.
type Interruption struct {
	Action string    `json:"action"` // terminate, stop or hibernate
	Time   time.Time `json:"time"`
}

// Wait returns when there is a notice, or the error of ctx. A service that does
// not answer has no notice.
func (n *Notices) Wait(ctx context.Context) (Interruption, error) {
	tick := time.NewTicker(n.interval)
	defer tick.Stop()
	for {
		i, err := n.Notice(ctx)
		if err == nil && i.Action != "" {
			return i, nil
		}
		select {
		case <-ctx.Done():
			return Interruption{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// Notice returns the notice there is, and one without an action if there is none.
func (n *Notices) Notice(ctx context.Context) (Interruption, error) {
	text, err := n.read(ctx, actionPath)
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound:
		return Interruption{}, nil
	case err != nil:
		return Interruption{}, fmt.Errorf("ask for a Spot notice: %w", err)
	}
	var i Interruption
	if err := json.Unmarshal(text, &i); err != nil {
		return Interruption{}, fmt.Errorf("read a Spot notice %.100q: %w", text, err)
	}
	return i, nil
}

func (n *Notices) read(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	out, err := n.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return nil, err
	}
	defer out.Content.Close()
	return io.ReadAll(io.LimitReader(out.Content, maxAnswer))
}
