package ec2

import (
	"bytes"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// UserData is what an instance is given to boot a worker from. Both nodes must
// give the very same, since it is part of what a token stands for. It has no
// secret: an instance is let in because the nodes see it among their own.
type UserData struct {
	Nodes []string // https URLs of the nodes, either of which will do
	CA    string   // PEM certificates that vouch for the nodes; "" trusts those of the image
	// BinaryPath is where a node has the program, less the architecture that
	// follows: amd64 or arm64. HealthPath answers while a node is well.
	BinaryPath, HealthPath string
	SHA256                 map[string]string // of the program, in hex, by architecture
	Args                   []string          // further arguments of the worker
	// FetchTime is how long the program is looked for; 0 is five minutes.
	FetchTime time.Duration
}

// maxUserData is what EC2 takes.
const maxUserData = 16 << 10

//go:embed userdata.sh.tmpl
var userDataText string

var userDataTemplate = template.Must(template.New("userdata").Funcs(template.FuncMap{"join": strings.Join, "quote": shellQuote}).Parse(userDataText))

var (
	plainArg  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:/._,=@+-]*$|^--?[a-z][A-Za-z0-9:/._,=@+-]*$`)
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]*$`)
	sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Render returns the script. It returns an error that names all that is wrong.
func (u UserData) Render() ([]byte, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(u.Nodes) == 0 {
		bad("user data: no node is given")
	}
	for _, n := range u.Nodes {
		at, err := url.Parse(n)
		if err != nil || at.Scheme != "https" || at.Host == "" || at.User != nil || strings.Trim(at.Path, "/") != "" || !plainArg.MatchString(n) {
			bad("user data: %q is no address of a node, https://HOST:PORT", n)
		}
	}
	for _, a := range u.Args {
		if !plainArg.MatchString(a) {
			bad("user data: argument %q has characters that a unit does not take as they are", a)
		}
	}
	for name, p := range map[string]string{"binary": u.BinaryPath, "health": u.HealthPath} {
		if !plainPath.MatchString(p) {
			bad("user data: path %q of the %s is not plain", p, name)
		}
	}
	if len(u.SHA256) == 0 {
		bad("user data: no sum of a program is given")
	}
	for arch, sum := range u.SHA256 {
		if arch != "amd64" && arch != "arm64" || !sha256Hex.MatchString(sum) {
			bad("user data: %q is no SHA-256 for %q", sum, arch)
		}
	}
	errs = append(errs, checkCA(u.CA))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	u.CA = strings.TrimSpace(u.CA)
	if u.FetchTime <= 0 {
		u.FetchTime = 5 * time.Minute
	}
	var b bytes.Buffer
	err := userDataTemplate.Execute(&b, struct {
		UserData
		FetchSeconds int
	}{u, int(u.FetchTime.Seconds())})
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	if b.Len() > maxUserData {
		return nil, fmt.Errorf("user data: %d bytes, at most %d fit", b.Len(), maxUserData)
	}
	return b.Bytes(), nil
}

// checkCA lets nothing but certificates through: what is in user data is known
// to all.
func checkCA(text string) error {
	rest := []byte(strings.TrimSpace(text))
	for len(rest) > 0 {
		block, more := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return errors.New("user data: the CA must be PEM certificates and nothing else")
		}
		rest = bytes.TrimSpace(more)
	}
	return nil
}

// shellQuote returns s as one word of sh.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
