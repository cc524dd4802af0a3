package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

type options struct {
	listen     []ma.Multiaddr
	policy     policy
	handshake  bool
	unsigned   bool // messages: no signatures are made, none are asked for
	agent      string
	kad        string // protocol prefix; empty: no DHT
	dns        string // a DNS server, HOST:PORT; empty: the system's
	mdns       string // a service's name; empty: no mDNS
	seed       string // empty: a random identity
	keyType    int    // of a random identity
	control    string // HOST:PORT of the control; empty: standard input
	timeout    time.Duration
	gossip     gossipOptions
	transports transportOptions
}

// node is the running peer: what the commands work on.
type node struct {
	host      *basichost.BasicHost
	swarm     *swarm.Swarm
	admission *admission // nil: the handshake isn't spoken
	identify  *identifications
	messenger *messenger
	dht       *kad.IpfsDHT // nil: none
	resolver  network.MultiaddrDNSResolver
	mdns      io.Closer // nil: not started
	gossip    *gossip   // nil: no pubsub
	bench     gossipBench
}

// newNode assembles a node and starts to listen, last: no peer can see it half
// assembled.
func newNode(opts options, out *output) (_ *node, err error) {
	key, err := newIdentity(opts.seed, opts.keyType)
	if err != nil {
		return nil, err
	}
	n := &node{}
	if n.resolver, err = newResolver(opts.dns); err != nil {
		return nil, err
	}
	if n.host, n.swarm, err = newHost(key, opts.agent, opts.transports, swarm.WithMultiaddrResolver(n.resolver)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.identify, err = watchIdentify(n.host, out.send); err != nil {
		return nil, err
	}
	if opts.handshake {
		n.admission = newAdmission(opts.policy, n.host.Mux(), out.send)
		n.host.SetStreamHandler(handshakeID, n.admission.respond)
		n.swarm.SetStreamHandler(n.admission.serve)
	}
	n.host.SetStreamHandler(echoID, echo)
	n.host.SetStreamHandler(bytesID, returnBytes)
	n.host.SetStreamHandler(resetID, resetAfterOne)
	n.host.SetStreamHandler(perfID, perfHandler(out.send))
	n.messenger = newMessenger(opts, key, n.host.ID(), out.send, n.openAdmitted)
	for _, name := range messageProtocols {
		n.host.SetStreamHandler(messageProtocol(name), n.messenger.handler(name))
	}
	n.swarm.Notify(n.notifiee(out))
	if opts.kad != "" {
		if n.dht, err = newDHT(n.host, opts.kad); err != nil {
			return nil, err
		}
	}
	if opts.gossip.mode != "" {
		if n.gossip, err = newGossip(n, opts.gossip, out.send); err != nil {
			return nil, err
		}
	}
	if err = n.swarm.Listen(opts.listen...); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	n.host.Start()
	return n, nil
}

func (n *node) close() {
	if n.mdns != nil {
		n.mdns.Close()
	}
	n.bench.close()
	if n.gossip != nil {
		n.gossip.stop()
	}
	if n.dht != nil {
		n.dht.Close()
	}
	n.host.Close()
}

func (n *node) notifiee(out *output) network.Notifiee {
	return &network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			if n.admission != nil {
				n.admission.connected(c)
			}
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			if n.admission != nil {
				n.admission.disconnected(c)
			}
			n.identify.disconnected(c)
			out.send(message{"event": "disconnected", "peer": c.RemotePeer(), "direction": direction(c)})
		},
	}
}

func (n *node) listening() message {
	addrs := []string{}
	for _, a := range n.host.Addrs() {
		addrs = append(addrs, fmt.Sprintf("%s/p2p/%s", a, n.host.ID()))
	}
	return message{
		"event": "listening", "peer": n.host.ID(), "addrs": addrs, "pid": os.Getpid(), "versions": versions(),
	}
}

// versions tells what this program was built from.
func versions() map[string]string {
	found := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, module := range info.Deps {
		switch name := strings.TrimPrefix(module.Path, "github.com/libp2p/"); name {
		case "go-libp2p", "go-libp2p-kad-dht", "go-libp2p-pubsub":
			found[name] = module.Version
		}
	}
	return found
}
