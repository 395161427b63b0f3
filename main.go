// Workmanager is a work queue for iterated SHA-512.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"workmanager/node/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(cli.Main(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}
