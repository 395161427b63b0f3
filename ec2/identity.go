package ec2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// slotPath is where the service shows the tag with the slot, if it shows tags.
const slotPath = "tags/instance/" + tagSlot

// identityRetry is how long to wait before a service that did not answer is asked
// again: it may be later than the worker.
const identityRetry = time.Second

// Identity returns the instance that this machine is, and its slot, -1 if the
// service shows no tags. It asks until there is an answer or ctx is done.
func (n *Notices) Identity(ctx context.Context) (id string, slot int, err error) {
	for {
		if id, slot, err = n.identity(ctx); err == nil {
			return id, slot, nil
		}
		wait := time.NewTimer(identityRetry)
		select {
		case <-ctx.Done():
			wait.Stop()
			return "", -1, fmt.Errorf("ask the instance metadata service which instance this is: %w", err)
		case <-wait.C:
		}
	}
}

func (n *Notices) identity(ctx context.Context) (string, int, error) {
	text, err := n.read(ctx, probePath)
	if err != nil {
		return "", -1, err
	}
	id := strings.TrimSpace(string(text))
	if !InstanceName(id) {
		return "", -1, fmt.Errorf("%.64q is no instance", id)
	}
	text, err = n.read(ctx, slotPath)
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound:
		return id, -1, nil
	case err != nil:
		return "", -1, err
	}
	slot, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || slot < 0 {
		return "", -1, fmt.Errorf("tag %s is %.64q, which is no slot", tagSlot, text)
	}
	return id, slot, nil
}
