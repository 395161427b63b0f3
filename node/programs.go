package node

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"workmanager/jobs"
	"workmanager/web"
)

// selfPath is the program that runs, whatever has become of its file meanwhile.
const selfPath = "/proc/self/exe"

// machines are the architectures that instances have.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// programs are builds of this program for instances, by architecture: the one
// that runs, and those of a folder. Their files are open as long as the node is,
// so what is sent is what was hashed though a file is replaced meanwhile.
type programs struct {
	dir  string
	list map[string]*program
}

type program struct {
	file *os.File
	name string
	once sync.Once // guards the rest
	sum  string
	size int64
	at   time.Time
	err  error
}

// openPrograms opens what there is. dir is the folder, "" for none; a file of it
// that is no program for Linux is an error.
func openPrograms(dir string) (*programs, error) {
	p := &programs{dir: dir, list: map[string]*program{}}
	if runtime.GOOS == "linux" && machines[runtime.GOARCH] != 0 {
		if err := p.open(runtime.GOARCH, selfPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("open the program that runs: %w", err), p.close())
		}
	}
	if dir == "" {
		return p, nil
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return nil, errors.Join(fmt.Errorf("--binaries %s is no folder", dir), p.close())
	}
	for arch := range machines {
		if p.list[arch] != nil {
			continue // this one is it
		}
		if err := p.open(arch, filepath.Join(dir, fileOf(arch))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("--binaries: %w", err), p.close())
		}
	}
	return p, nil
}

// fileOf is the name of a program in the folder.
func fileOf(arch string) string { return "workmanager-linux-" + arch }

func (p *programs) open(arch, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	e, err := elf.NewFile(f)
	if err != nil || e.Machine != machines[arch] || e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return errors.Join(fmt.Errorf("%s is no program for linux/%s", name, arch), f.Close())
	}
	p.list[arch] = &program{file: f, name: name}
	return nil
}

func (p *programs) close() error {
	var errs []error
	for _, x := range p.list {
		errs = append(errs, x.file.Close())
	}
	return errors.Join(errs...)
}

// Program returns the program for an architecture. See web.Programs.
func (p *programs) Program(arch string) (web.Program, error) {
	x := p.list[arch]
	if x == nil {
		return web.Program{}, jobs.Errorf(jobs.CodeNoRoute, "%s", p.missing(arch))
	}
	if err := x.hash(); err != nil {
		return web.Program{}, err
	}
	if fi, err := x.file.Stat(); err != nil || fi.Size() != x.size || !fi.ModTime().Equal(x.at) {
		return web.Program{}, jobs.Errorf(jobs.CodeUnavailable, "%s was written over since this node hashed it: restart the node", filepath.Base(x.name))
	}
	return web.Program{ReaderAt: x.file, Size: x.size, SHA256: x.sum}, nil
}

// hash hashes the file once. It takes some 0.1 s, so a node whose programs nobody
// wants is spared it.
func (x *program) hash() error {
	x.once.Do(func() {
		fi, err := x.file.Stat()
		if err != nil {
			x.err = fmt.Errorf("hash %s: %w", x.name, err)
			return
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(x.file, 0, fi.Size())); err != nil {
			x.err = fmt.Errorf("hash %s: %w", x.name, err)
			return
		}
		x.sum, x.size, x.at = hex.EncodeToString(h.Sum(nil)), fi.Size(), fi.ModTime()
	})
	return x.err
}

// sums returns the SHA-256 of each program, in hexadecimal, by architecture.
func (p *programs) sums() (map[string]string, error) {
	out := map[string]string{}
	for arch, x := range p.list {
		if err := x.hash(); err != nil {
			return nil, err
		}
		out[arch] = x.sum
	}
	return out, nil
}

// missing says that there is no program for an architecture, and what to do.
func (p *programs) missing(arch string) string {
	if p.dir == "" {
		return fmt.Sprintf("this node has no program for %s: give --binaries a folder with %s in it", arch, fileOf(arch))
	}
	return fmt.Sprintf("this node has no program for %s: put %s into %s and restart the node", arch, fileOf(arch), p.dir)
}
