package main

import (
	"bytes"
	"context"
	"errors"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
)

// newDHT starts a DHT server on PREFIX/kad/1.0.0 with the library's defaults,
// save that all addresses count, for tests run on loopback, and that it takes
// values under /v/ too, which only the public DHT forbids.
func newDHT(h host.Host, prefix string) (*kad.IpfsDHT, error) {
	opts := []kad.Option{
		kad.ProtocolPrefix(protocol.ID(prefix)),
		kad.Mode(kad.ModeServer),
		kad.AddressFilter(func(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }),
		kad.QueryFilter(func(any, peer.AddrInfo) bool { return true }),
		kad.RoutingTableFilter(func(any, peer.ID) bool { return true }),
	}
	if protocol.ID(prefix) != kad.DefaultPrefix {
		opts = append(opts, kad.NamespacedValidator("v", anyValue{}))
	}
	return kad.New(h, opts...)
}

// anyValue finds every value valid, and of two the greater one better, as bytes.
type anyValue struct{}

func (anyValue) Validate(string, []byte) error { return nil }

func (anyValue) Select(_ string, values [][]byte) (int, error) {
	best := 0
	for i, value := range values {
		if bytes.Compare(value, values[best]) > 0 {
			best = i
		}
	}
	return best, nil
}

// lookup is the outcome of findPeer.
type lookup struct {
	found     bool
	connected bool // before the look-up
	addrs     []ma.Multiaddr
	queried   []peer.ID // asked about the target
	namedBy   []peer.ID // answered with the target among the peers
}

// findPeer looks a peer up in the DHT. FindPeer doesn't query for a peer that is
// connected; then a plain look-up is run, and the answers tell if it was found.
func findPeer(ctx context.Context, dht *kad.IpfsDHT, target peer.ID) (lookup, error) {
	var l lookup
	var info peer.AddrInfo
	connected := dht.Host().Network().Connectedness(target) == network.Connected
	err := withQueryEvents(ctx, func(ctx context.Context) (err error) {
		if connected {
			_, err = dht.GetClosestPeers(ctx, string(target))
		} else {
			info, err = dht.FindPeer(ctx, target)
		}
		return err
	}, func(e *routing.QueryEvent) {
		switch e.Type {
		case routing.SendingQuery:
			l.queried = append(l.queried, e.ID)
		case routing.PeerResponse:
			for _, answer := range e.Responses {
				if answer.ID == target {
					l.namedBy = append(l.namedBy, e.ID)
					l.addrs = ma.Unique(append(l.addrs, answer.Addrs...))
				}
			}
		}
	})

	l.connected = connected
	if connected {
		l.found = len(l.namedBy) > 0
	} else {
		l.found = err == nil
		l.addrs = ma.Unique(append(l.addrs, info.Addrs...))
	}
	if errors.Is(err, routing.ErrNotFound) {
		err = nil
	}
	return l, err
}

// withQueryEvents runs a query and shows what happens in it; the last event has
// been shown when it returns.
func withQueryEvents(ctx context.Context, query func(context.Context) error, see func(*routing.QueryEvent)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, events := routing.RegisterForQueryEvents(ctx)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for e := range events {
			see(e)
		}
	}()
	err := query(ctx)
	cancel()
	<-seen
	return err
}
