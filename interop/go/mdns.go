package main

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// startMDNS announces this peer on the local network and connects to those that
// it finds there. What became of each is told once as an event, though others
// may have connected meanwhile.
func (n *node) startMDNS(service string, timeout time.Duration, emit func(message)) error {
	s := mdns.NewMdnsService(n.host, service, foundPeers(func(info peer.AddrInfo) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		result := message{"event": "mdns", "peer": info.ID, "addrs": addrStrings(info.Addrs)}
		err := n.connectFound(ctx, info)
		if result["connected"] = err == nil; err != nil {
			result["error"] = err.Error()
		}
		emit(result)
	}))
	if err := s.Start(); err != nil {
		return err
	}
	n.mdns = s
	return nil
}

func (n *node) connectFound(ctx context.Context, info peer.AddrInfo) error {
	n.swarm.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	c, err := n.swarm.DialPeer(network.WithForceDirectDial(ctx, "mdns"), info.ID)
	if err != nil {
		return err
	}
	return n.waitAdmitted(ctx, c)
}

// foundPeers is called for each peer found, in a goroutine of its own.
type foundPeers func(peer.AddrInfo)

func (f foundPeers) HandlePeerFound(info peer.AddrInfo) { f(info) }
