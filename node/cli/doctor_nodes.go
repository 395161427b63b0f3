package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"workmanager/jobs"
	"workmanager/node"
	"workmanager/node/keys"
	"workmanager/web/api"
	"workmanager/web/client"
)

// failSkew is the difference of two clocks that makes times shown, retention and
// the ends of tokens wrong.
const failSkew = 30 * time.Second

// nodes looks at each node that was named, and at what they say of each other.
func (d *doctor) nodes(ctx context.Context, urls []string, token string, gossip []string) {
	seen := map[string]api.Status{} // by node
	apis := map[string]bool{}       // host:port that was tried
	for _, u := range urls {
		host, secure := d.address(u)
		apis[host] = true
		if !d.reach(ctx, u, host, secure) {
			continue
		}
		if st, ok := d.ask(ctx, u, token); ok {
			seen[st.Node] = st
			d.state(u, st)
		}
	}
	for _, st := range seen {
		if a := st.Peer.API; a != "" && !apis[a] && seen[st.Peer.Node].Node == "" {
			d.port(ctx, st.Peer.Node+"'s API", a)
		}
		if g := st.Peer.Gossip; g != "" && !slices.Contains(gossip, g) {
			gossip = append(gossip, g)
		}
	}
	for _, g := range gossip {
		d.gossip(ctx, g)
	}
	versions := map[string][]string{}
	for name, st := range seen {
		versions[st.Version] = append(versions[st.Version], name)
	}
	switch {
	case len(versions) > 1:
		d.add("versions", stateWarn, "finish the upgrade: stop, replace and start one node after the other", "the nodes run different ones: %s", said(versions))
	case len(versions) == 1:
		d.add("versions", stateOK, "", "%s; this program is %s", said(versions), node.Version())
	}
}

func said(versions map[string][]string) string {
	var out []string
	for v, nodes := range versions {
		slices.Sort(nodes)
		out = append(out, "node "+strings.Join(nodes, " and ")+" "+v)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// address returns the host:port of a node's URL, and whether it is TLS.
func (d *doctor) address(s string) (host string, secure bool) {
	if !strings.Contains(s, "://") {
		return s, d.ca != ""
	}
	u, err := url.Parse(s)
	if err != nil {
		return s, false
	}
	secure = u.Scheme == "https"
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[secure]), secure
	}
	return u.Host, secure
}

// port looks whether anybody listens.
func (d *doctor) port(ctx context.Context, what, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	begin := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		next := "let TCP to " + addr + " through between here and there: a security group, a firewall"
		if refused(err) {
			next = "is the node running? Start it there with 'workmanager node', or 'systemctl status workmanager'"
		}
		d.add("port", stateFail, next, "%s at %s, TCP: %v", what, addr, err)
		return false
	}
	_ = conn.Close() // nothing was sent
	d.add("port", stateOK, "", "%s at %s answers by TCP in %s", what, addr, roughly(time.Since(begin)))
	return true
}

func refused(err error) bool { return strings.Contains(err.Error(), "connection refused") }

// reach looks at a node's port and, with TLS, at the certificate it shows.
func (d *doctor) reach(ctx context.Context, u, host string, secure bool) bool {
	if !d.port(ctx, "the API", host) {
		return false
	}
	if !secure {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	// Whatever it shows is looked at below, so that what is wrong with it can be said.
	conn, err := (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}).DialContext(ctx, "tcp", host) //nolint:gosec // see above
	if err != nil {
		d.add("certificate", stateFail, "does the node there run with --keys? Else take http:// for it", "no TLS at %s: %v", host, err)
		return false
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	leaf := chain[0]
	opt := x509.VerifyOptions{CurrentTime: time.Now(), Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		opt.Intermediates.AddCert(c)
	}
	opt.DNSName, _, _ = net.SplitHostPort(host) // it was dialled
	if d.ca != "" {
		pem, err := os.ReadFile(d.ca)
		opt.Roots = x509.NewCertPool()
		if err != nil || !opt.Roots.AppendCertsFromPEM(pem) {
			d.add("certificate", stateFail, "give the ca.crt that 'workmanager init' made", "no authority to check %s by in %s: %v", u, d.ca, err)
			return false
		}
	}
	renew := "where ca.key is: 'workmanager init --out DIR --renew', then copy node.crt and node.key to the node"
	if _, err := leaf.Verify(opt); err != nil {
		next := renew
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		switch {
		case errors.As(err, &unknown):
			next = "give --ca the ca.crt of this pair"
		case errors.As(err, &name):
			next = "take a name or an address that is in the certificate, or make one with it: 'workmanager init --renew --node NAME=HOST'"
		}
		d.add("certificate", stateFail, next, "that of %s: %v", u, err)
		return false
	}
	d.ends("certificate", "that of "+u, leaf.NotAfter, renew)
	return true
}

// ask gets a node's status.
func (d *doctor) ask(ctx context.Context, u, token string) (api.Status, bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*d.timeout)
	defer cancel()
	cl := &client.Client{URLs: []string{u}, Token: token, CAFile: d.ca, Rounds: 1}
	defer cl.Close()
	begin := time.Now()
	st, err := cl.Status(ctx)
	if err != nil {
		next := "see the node's log"
		if code := jobs.CodeOf(err); code == jobs.CodeAuth || code == jobs.CodeForbidden {
			next = "show a client's or an operator's token with WORKMANAGER_TOKEN: the folder of 'workmanager init' has one in " + keys.EnvFile
		}
		d.add("status", stateFail, next, "%s: %v", u, err)
		return st, false
	}
	took := time.Since(begin)
	// Its clock was read somewhere between the two of ours.
	skew := st.Now.Sub(begin.Add(took / 2))
	d.clock("the clock of node "+st.Node+" and this machine's", skew, took/2)
	return st, true
}

func (d *doctor) clock(what string, skew, doubt time.Duration) {
	next := "set the clock that is wrong: 'timedatectl' on each machine, and install chrony"
	switch off := max(skew.Abs()-doubt, 0); {
	case off >= failSkew:
		d.add("clock", stateFail, next, "%s differ by %s", what, roughly(skew.Abs()))
	case off >= warnSkew:
		d.add("clock", stateWarn, next, "%s differ by %s", what, roughly(skew.Abs()))
	default:
		d.add("clock", stateOK, "", "%s differ by less than %s", what, roughly(max(skew.Abs(), 10*time.Millisecond)+doubt))
	}
}

// state judges what a node says of itself.
func (d *doctor) state(u string, st api.Status) {
	name := "node " + st.Node
	size := fmt.Sprintf("%s keeps %s in %s, and has %s free", name, plural(st.Queued+st.Leased+st.Completed+st.Failed+st.Cancelled, "job"),
		humanize.IBytes(uint64(max(0, st.StoreBytes+st.WALBytes))), humanize.IBytes(uint64(max(0, st.DiskFreeBytes))))
	if st.Writable {
		d.add("database", stateOK, "", "%s", size)
	} else {
		d.add("database", stateFail, "make room on its disk, or raise --max-store-bytes", "%s takes no new jobs: %s", name, st.WriteProblem)
	}
	if st.Alarms > 0 {
		d.add("values", stateFail, "see the node's log; what is to be done is in node/OPERATIONS.md, WorkmanagerValuesDisagree", "%s has seen %s of different values for one job", name, plural(st.Alarms, "pair"))
	}
	if n := len(st.Audit.Quarantined); n > 0 {
		d.add("values", stateFail, "end that worker, or 'workmanager quarantine lift' it once its machine is mended", "%s gives no more work to %s, among them %s: %s", name, plural(int64(n), "worker"), st.Audit.Quarantined[0].Worker, st.Audit.Quarantined[0].Reason)
	}
	if c := st.Certificate; c != nil {
		if c.CADaysLeft < warnDays {
			d.ends("authority", "the authority at "+name, c.CAExpiresAt, "make keys for both nodes with 'workmanager init', and start both with them")
		}
	}
	d.peer(name, st)
}

// peer judges how a node stands with the other one.
func (d *doctor) peer(name string, st api.Status) {
	peer := st.Peer
	trouble := strings.Join(peerTrouble(st), " ")
	switch {
	case peer.Session == api.SessionNone:
		d.add("peer", stateWarn, "start a second node with --join HOST:PORT of this one's gossip", "%s has no peer: every job is on one disk", name)
		return
	case peer.Refused != "":
		d.add("peer", stateFail, "both nodes need the same --cluster and keys, names of their own, and data folders of their own", "%s and its peer do not talk: %s", name, peer.Refused)
	case peer.Session == "down":
		d.add("peer", stateFail, "is the other node running? Are its ports open from here, the API by TCP and gossip by TCP and UDP?", "%s: %s", name, trouble)
	case peer.Session == "connected":
		d.add("peer", stateFail, "open the ports in both directions: the API by TCP, gossip by TCP and UDP", "%s: %s", name, trouble)
	case peer.Session == "catchup" || trouble != "":
		d.add("peer", stateWarn, "wait until it is done; 'workmanager status --watch' shows how far it is", "%s: %s", name, trouble)
	default:
		d.add("peer", stateOK, "", "%s and node %s are in step, %s behind", name, peer.Node, plural(peer.UnderReplicated, "row"))
	}
	if peer.Session != "down" {
		d.clock(fmt.Sprintf("the clocks of %s and node %s", name, peer.Node), inSeconds(peer.SkewSeconds), 0)
	}
}

// gossip looks whether gossip answers from here, by both ways.
func (d *doctor) gossip(ctx context.Context, addr string) {
	took, tcp, udp := node.ProbeGossip(ctx, addr, d.cluster, keys.Files{Dir: d.keys}, d.timeout)
	if tcp != nil {
		next := "let TCP to " + addr + " through: a security group, a firewall"
		if refused(tcp) {
			next = "is the node running there, with that --gossip?"
		}
		d.add("port", stateFail, next, "gossip at %s, TCP: %v", addr, tcp)
	} else {
		d.add("port", stateOK, "", "gossip at %s answers by TCP", addr)
	}
	switch {
	case udp == nil:
		d.add("port", stateOK, "", "gossip at %s answers by UDP in %s", addr, roughly(took))
	case tcp != nil:
		d.add("port", stateFail, "first mend TCP", "gossip at %s, UDP: %v", addr, udp)
	default:
		next := "let UDP to " + addr + " through from here: a security group, a firewall. Failure detection is slower over TCP"
		if d.keys == "" {
			next += "; or give --keys and --cluster as the node has them, else it does not answer"
		} else if d.cluster == "" {
			next += "; or give --cluster as the node has it, else it does not answer"
		}
		d.add("port", stateFail, next, "gossip at %s, UDP: %v", addr, udp)
	}
}
