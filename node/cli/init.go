package cli

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"workmanager/node/keys"
)

const (
	apiPort    = "5000"
	gossipPort = "7946"
)

func (p *program) initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the keys of a pair: authority, certificates, gossip key, tokens",
		Description: "Makes a folder for each node, ready to be copied to it, and client.env for the\n" +
			"command line elsewhere. Tokens are printed once and kept as their hash. ca.key\n" +
			"signs certificates: keep it off the nodes.\n\n" +
			"--renew makes new certificates by the same authority, for all nodes or those\n" +
			"named; a running node takes them within seconds.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` to make the keys in; it must be empty or not there"},
			&cli.StringSliceFlag{Name: "node", Usage: "`NAME=HOST[,HOST]` of a node: names or addresses it is reached at; give both",
				EnvVars: []string{"WORKMANAGER_INIT_NODE"}}, // the other one is of URLs, which client.env sets
			&cli.BoolFlag{Name: "renew", Usage: "renew the certificates of the nodes in the folder", DisableDefaultText: true},
			&cli.DurationFlag{Name: "valid", Usage: "nodes' certificates are good for `DURATION`; the authority's for ten years", Value: keys.NodeTTL},
			reportFlag(),
		},
		Action: p.init,
	}
}

func (p *program) init(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	dir, ttl := c.String("out"), c.Duration("valid")
	if dir == "" {
		return usagef("--out FOLDER is missing: where to make the keys")
	}
	if ttl <= 0 {
		return usagef("--valid must be above 0: %s given", ttl)
	}
	hosts, err := hostsOf(c.StringSlice("node"))
	if err != nil {
		return err
	}
	if c.Bool("renew") {
		renewed, err := keys.Renew(dir, hosts, ttl, time.Now())
		if f := format(c); f != formatTable && err == nil {
			type cert struct {
				Certificate string    `json:"certificate"`
				ExpiresAt   time.Time `json:"expires_at"`
			}
			out := []cert{}
			for _, folder := range renewed {
				out = append(out, cert{filepath.Join(folder, keys.CertFile), time.Now().Add(ttl).UTC().Truncate(time.Second)})
			}
			return p.printJSON(f, map[string]any{"renewed": out})
		}
		for _, folder := range renewed {
			fmt.Fprintf(p.stdout, "renewed: %s, good until %s\n", filepath.Join(folder, keys.CertFile), time.Now().Add(ttl).UTC().Format(time.DateOnly))
		}
		if err == nil {
			p.say("copy node.crt and node.key of each folder to its node; it takes them within seconds, without a restart")
		}
		return err
	}
	if len(hosts) == 0 {
		return usagef("--node NAME=HOST is missing: give it once for each of the two nodes")
	}
	made, err := keys.Init(dir, hosts, ttl, time.Now(), func(made keys.Made) string { return clientEnv(dir, hosts, made) })
	if errors.Is(err, keys.ErrExists) {
		return &failure{exit: exitFailed, code: "exists", err: err, hint: "--renew gives its nodes new certificates; 'workmanager token' changes its tokens"}
	}
	if err != nil {
		return err
	}
	if f := format(c); f != formatTable {
		return p.printJSON(f, made)
	}
	fmt.Fprintf(p.stdout, "The authority of this pair: %s, %s\n", filepath.Join(dir, keys.CAFile), made.Fingerprint)
	fmt.Fprintf(p.stdout, "Its key signs new certificates, keep it off the nodes: %s\n\n", filepath.Join(dir, keys.CAKeyFile))
	for _, h := range hosts {
		fmt.Fprintf(p.stdout, "Copy %s to node %s and start it there:\n  %s\n", made.Folders[h.Node], h.Node, startLine(h, hosts, made.Folders[h.Node]))
	}
	fmt.Fprintf(p.stdout, "\nThe command line, where this folder is:\n  set -a; . %s; set +a; workmanager status\n", filepath.Join(dir, keys.EnvFile))
	fmt.Fprintf(p.stdout, "\nTokens, shown now and never again:\n")
	for _, role := range keys.Roles {
		fmt.Fprintf(p.stdout, "  %-8s %s\n", role, made.Tokens[role])
	}
	return nil
}

// hostsOf reads NAME=HOST. A comma begins another host, and, as the library
// splits there as well, what has no name belongs to the node before.
func hostsOf(list []string) ([]keys.Host, error) {
	if len(list) == 1 && list[0] == "" { // the environment's way to say none
		return nil, nil
	}
	var out []keys.Host
	for _, s := range list {
		name, host, named := strings.Cut(s, "=")
		if !named {
			name, host = "", s
		}
		host = strings.Trim(host, "[] ")
		if host == "" || strings.ContainsAny(host, "/ ") || named && name == "" || !named && len(out) == 0 {
			return nil, usagef("--node %s: want NAME=HOST, such as a=10.0.0.1", s)
		}
		if h, _, err := net.SplitHostPort(host); err == nil {
			return nil, usagef("--node %s: leave the port out: %s", s, h)
		}
		if named {
			if slices.ContainsFunc(out, func(h keys.Host) bool { return h.Node == name }) {
				return nil, usagef("--node %s: node %s is named twice", s, name)
			}
			out = append(out, keys.Host{Node: name})
		}
		out[len(out)-1].Hosts = append(out[len(out)-1].Hosts, host)
	}
	return out, nil
}

func clientEnv(dir string, hosts []keys.Host, made keys.Made) string {
	ca := filepath.Join(dir, keys.CAFile)
	if abs, err := filepath.Abs(ca); err == nil {
		ca = abs
	}
	var urls []string
	for _, h := range hosts {
		urls = append(urls, "https://"+net.JoinHostPort(h.Hosts[0], apiPort))
	}
	return fmt.Sprintf("# for the command line: set -a; . ./%s; set +a\nWORKMANAGER_NODE=%s\nWORKMANAGER_CA='%s'\nWORKMANAGER_TOKEN=%s\n",
		keys.EnvFile, strings.Join(urls, ","), strings.ReplaceAll(ca, "'", `'\''`), made.Tokens[keys.Client])
}

// startLine is how a node is started.
func startLine(h keys.Host, all []keys.Host, folder string) string {
	line := fmt.Sprintf("workmanager node --keys %s --listen %s --gossip %s", folder, net.JoinHostPort(h.Hosts[0], apiPort), net.JoinHostPort(h.Hosts[0], gossipPort))
	for _, other := range all {
		if other.Node != h.Node {
			line += " --join " + net.JoinHostPort(other.Hosts[0], gossipPort)
		}
	}
	return line
}
