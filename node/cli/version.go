package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"workmanager/node"
)

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print what this program was built from",
		Flags:  []cli.Flag{reportFlag()},
		Action: p.version,
	}
}

// build is what a program was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified"`       // the tree held more than the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	GOAMD64  string `json:"goamd64,omitempty"` // the instructions the compiler may use
}

// commit names the revision, and says so if the tree held more.
func (b build) commit() string {
	if b.Modified && b.Revision != "" {
		return b.Revision + " and changes"
	}
	return b.Revision
}

func readBuild() build {
	b := build{Version: node.Version(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "GOAMD64":
			b.GOAMD64 = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (p *program) version(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	b := readBuild()
	if f := format(c); f != formatTable {
		return p.printJSON(f, b)
	}
	_, err := fmt.Fprintf(p.stdout, "workmanager %s, %s %s/%s\n", b.Version, b.Go, b.OS, b.Arch)
	return err
}
