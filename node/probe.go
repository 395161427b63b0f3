package node

import (
	"context"
	"fmt"
	"time"

	"workmanager/node/keys"
	peersync "workmanager/sync"
)

// ProbeGossip asks whether gossip answers at addr, by TCP and by UDP. Without the
// keys of a closed pair it gets no answer by UDP.
func ProbeGossip(ctx context.Context, addr, cluster string, files keys.Files, timeout time.Duration) (took time.Duration, tcp, udp error) {
	var ring [][]byte
	if files.Dir != "" {
		var err error
		if ring, err = keys.GossipKeys(files.Dir); err != nil {
			return 0, nil, fmt.Errorf("read the key of gossip: %w", err)
		}
	}
	p := peersync.Probe(ctx, addr, cluster, ring, timeout)
	return p.Took, p.TCP, p.UDP
}
