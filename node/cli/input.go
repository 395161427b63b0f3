package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"workmanager/web/client"
)

// input is one thing to read: a file, or stdin.
type input struct {
	name string
	data client.Data
}

// memoryBytes is how much of stdin is held in memory; the rest goes to a file.
const memoryBytes = 8 << 20

// inputs opens the named files once, to find a wrong name before anything is
// sent, and takes all of stdin for "-". The files are read again when they are
// sent. cleanup releases what stdin took.
func (p *program) inputs(names []string) (in []input, cleanup func(), err error) {
	cleanup = func() {}
	defer func() {
		if err != nil {
			cleanup()
			cleanup = func() {}
		}
	}()
	stdin := false
	for _, name := range names {
		if name == "-" {
			if stdin {
				return nil, cleanup, usagef("- is given twice, stdin can be read once")
			}
			stdin = true
			data, free, err := spool(p.stdin)
			if err != nil {
				return nil, cleanup, err
			}
			cleanup = free
			in = append(in, input{name: "-", data: data})
			continue
		}
		data := client.File(name)
		body, _, err := data()
		if err != nil {
			return nil, cleanup, err
		}
		body.Close()
		in = append(in, input{name: name, data: data})
	}
	return in, cleanup, nil
}

// spool takes all of r, so that it can be read again. What is too much for
// memory goes to a temporary file that only its owner can read and that has no
// name any more where the system allows it: data is often key material.
func spool(r io.Reader) (client.Data, func(), error) {
	head, err := io.ReadAll(io.LimitReader(r, memoryBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(head) <= memoryBytes {
		return client.Bytes(head), func() {}, nil
	}
	f, err := os.CreateTemp("", "workmanager-stdin-*")
	if err != nil {
		return nil, nil, fmt.Errorf("keep stdin in a file: %w", err)
	}
	unlinked := os.Remove(f.Name()) == nil
	free := func() {
		f.Close()
		if !unlinked {
			_ = os.Remove(f.Name()) // nobody is left to be told
		}
	}
	n, err := io.Copy(f, io.MultiReader(bytes.NewReader(head), r))
	if err != nil {
		free()
		return nil, nil, fmt.Errorf("keep stdin in a file: %w", err)
	}
	return func() (io.ReadCloser, int64, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, n)), n, nil
	}, free, nil
}
