package main

import (
	"context"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
)

// As in go-libp2p's swarm, which keeps them to itself.
const (
	maxDNSAddrDepth = 4
	maxResolved     = 100
)

// newResolver asks one DNS server only, or those of the system if server is empty.
func newResolver(server string) (network.MultiaddrDNSResolver, error) {
	if server == "" {
		return swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}, nil
	}
	asked := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		},
	}
	r, err := madns.NewResolver(madns.WithDefaultResolver(asked))
	return swarm.ResolverFromMaDNS{Resolver: r}, err
}

// resolveDNSAddr resolves as a dial does, but for the names of hosts, which stay
// as they are.
func (n *node) resolveDNSAddr(ctx context.Context, args []string) (message, error) {
	addr, err := ma.NewMultiaddr(args[0])
	if err != nil {
		return nil, err
	}
	addrs, err := n.resolver.ResolveDNSAddr(ctx, "", addr, maxDNSAddrDepth, maxResolved)
	return message{"addrs": addrStrings(addrs)}, err
}
