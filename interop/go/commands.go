package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

const maxReplyFrame = 1 << 20

var errNotConnected = errors.New("not connected")

func (n *node) commands() map[string]command {
	commands := map[string]command{
		"connect":       {"MULTIADDR", 1, n.connect},
		"disconnect":    {"PEER", 1, withPeer(n.disconnect)},
		"peers":         {"", 0, n.peers},
		"identify":      {"PEER", 1, withPeer(n.identified)},
		"push-identify": {"", 0, n.pushIdentify},
		"ping":          {"PEER [N]", 1, withPeer(n.ping)},
		"perf":          {"PEER UP DOWN [STREAMS]", 3, withPeer(n.perf)},
		"both":          {"PEER BYTES", 2, withPeer(n.both)},
		"streams":       {"PEER N WIDTH", 3, withPeer(n.streams)},
		"requests":      {"PEER N STREAMS", 3, withPeer(n.requests)},
		"echo":          {"PEER BYTES STREAMS", 3, withPeer(n.echoBytes)},
		"reset":         {"PEER", 1, withPeer(n.reset)},
		"was-reset":     {"PEER", 1, withPeer(n.wasReset)},
		"stream":        {"PEER PROTOCOL [HEX]", 2, withPeer(n.stream)},
		"raw-stream":    {"PEER PROTOCOL", 2, withPeer(n.rawStream)},
		"protocols":     {"PEER", 1, withPeer(n.protocols)},

		"resolve-dnsaddr": {"MULTIADDR", 1, n.resolveDNSAddr},
	}
	maps.Copy(commands, n.messageCommands())
	maps.Copy(commands, n.dhtCommands())
	maps.Copy(commands, n.gossipCommands())
	maps.Copy(commands, n.bench.commands())
	return commands
}

// withPeer parses the first argument of a command.
func withPeer(run func(context.Context, peer.ID, []string) (message, error)) func(context.Context, []string) (message, error) {
	return func(ctx context.Context, args []string) (message, error) {
		p, err := peer.Decode(args[0])
		if err != nil {
			return nil, err
		}
		return run(ctx, p, args[1:])
	}
}

// connect dials exactly the given address and waits for admission, not for
// identify. Times are of the monotonic clock.
func (n *node) connect(ctx context.Context, args []string) (message, error) {
	info, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return nil, err
	}
	if len(info.Addrs) != 1 {
		return nil, errors.New("expected an address before /p2p/PEER")
	}
	result := message{"peer": info.ID, "already": false}
	if conns := n.swarm.ConnsToPeer(info.ID); len(conns) > 0 {
		result["already"] = true
		return result, n.waitAdmitted(ctx, conns[0])
	}

	// The swarm dials what the peerstore holds, and refuses for a while what
	// has failed before. Neither is wanted here.
	n.swarm.Peerstore().ClearAddrs(info.ID)
	n.swarm.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	n.swarm.Backoff().Clear(info.ID)

	start := time.Now()
	c, err := n.swarm.DialPeer(network.WithForceDirectDial(ctx, "connect"), info.ID)
	if err != nil {
		result["stage"] = "dial"
		return result, err
	}
	result["addr"] = c.RemoteMultiaddr().String()
	result["dial_ms"] = milliseconds(c.Stat().Opened.Sub(start))
	if n.admission == nil {
		result["total_ms"] = milliseconds(time.Since(start))
		return result, nil
	}
	// Its handshake began by itself when it was established.
	if err := n.admission.wait(ctx, c); err != nil {
		result["stage"] = "admission"
		return result, fmt.Errorf("refused: %w", err)
	}
	ca := n.admission.of(c)
	result["admission_ms"] = milliseconds(ca.took)
	result["total_ms"] = milliseconds(ca.at.Sub(start))
	return result, nil
}

func (n *node) disconnect(_ context.Context, p peer.ID, _ []string) (message, error) {
	conns := n.swarm.ConnsToPeer(p)
	return message{"peer": p, "closed": len(conns)}, n.swarm.ClosePeer(p)
}

func (n *node) peers(context.Context, []string) (message, error) {
	list := []message{}
	for _, p := range n.swarm.Peers() {
		conns := n.swarm.ConnsToPeer(p)
		if len(conns) == 0 {
			continue // gone meanwhile
		}
		admitted, streams := false, 0
		for _, c := range conns {
			admitted = admitted || n.admission != nil && n.admission.admitted(c)
			streams += len(c.GetStreams())
		}
		list = append(list, message{
			"peer": p, "direction": direction(conns[0]), "admitted": admitted,
			"streams": streams, "connections": len(conns),
		})
	}
	return message{"peers": list}, nil
}

func (n *node) identified(ctx context.Context, p peer.ID, _ []string) (message, error) {
	c, err := n.conn(p)
	if err != nil {
		return nil, err
	}
	said, err := n.identify.wait(ctx, c)
	if err != nil {
		return nil, err
	}
	return message{
		"peer":             p,
		"agent":            said.AgentVersion,
		"protocol_version": said.ProtocolVersion,
		"protocols":        sortedProtocols(said.Protocols),
		"addrs":            addrStrings(said.ListenAddrs),
		"signed_record":    said.SignedPeerRecord != nil,
	}, nil
}

// pushIdentify serves one more protocol, of which the library tells all peers.
func (n *node) pushIdentify(context.Context, []string) (message, error) {
	n.host.SetStreamHandler(pushedID, func(s network.Stream) { s.Reset() })
	return message{"protocol": pushedID}, nil
}

func (n *node) ping(ctx context.Context, p peer.ID, args []string) (message, error) {
	count := 1
	if len(args) > 0 {
		var err error
		if count, err = strconv.Atoi(args[0]); err != nil || count < 1 {
			return nil, fmt.Errorf("expected a count of at least 1, got %q", args[0])
		}
	}
	c, err := n.conn(p)
	if err != nil {
		return nil, err
	}
	if err := n.waitAdmitted(ctx, c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(network.WithNoDial(ctx, "ping"))
	defer cancel()
	rtts := make([]float64, 0, count)
	for result := range ping.Ping(ctx, n.host, p) {
		if result.Error != nil {
			return nil, result.Error
		}
		rtts = append(rtts, float64(result.RTT)/float64(time.Microsecond))
		if len(rtts) == count {
			return message{"peer": p, "rtt_us": rtts}, nil
		}
	}
	return nil, cmp.Or(ctx.Err(), errors.New("ping ended"))
}

func (n *node) stream(ctx context.Context, p peer.ID, args []string) (message, error) {
	var payload []byte
	if len(args) > 1 {
		var err error
		if payload, err = hex.DecodeString(args[1]); err != nil {
			return nil, err
		}
	}
	c, err := n.conn(p)
	if err != nil {
		return nil, err
	}
	if err := n.waitAdmitted(ctx, c); err != nil {
		return nil, err
	}
	s, err := openStream(ctx, c, protocol.ID(args[0]))
	if err != nil {
		return nil, err
	}
	if err = writeFrame(s, payload); err == nil {
		var frame []byte
		if frame, err = readFrame(bufio.NewReader(s), maxReplyFrame); err == nil {
			s.Close()
			return message{"peer": p, "frame": hex.EncodeToString(frame)}, nil
		}
	}
	s.Reset()
	return nil, err
}

// rawStream speaks without waiting for admission. What it received tells how
// much the other side said: 20 bytes are the multistream header alone.
func (n *node) rawStream(ctx context.Context, p peer.ID, args []string) (message, error) {
	c, err := n.conn(p)
	if err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	counted := &countingStream{ReadWriteCloser: s}
	err = multistream.SelectProtoOrFail(protocol.ID(args[0]), counted)
	result := message{"peer": p, "received": counted.read}
	if err != nil {
		s.Reset()
		return result, err
	}
	return result, s.Close()
}

func (n *node) protocols(_ context.Context, p peer.ID, _ []string) (message, error) {
	ids, err := n.host.Peerstore().GetProtocols(p)
	return message{"peer": p, "protocols": sortedProtocols(ids)}, err
}

// conn returns a connection to p, an admitted one if there is one.
func (n *node) conn(p peer.ID) (network.Conn, error) {
	conns := n.swarm.ConnsToPeer(p)
	if len(conns) == 0 {
		return nil, errNotConnected
	}
	if n.admission != nil {
		if i := slices.IndexFunc(conns, n.admission.admitted); i >= 0 {
			return conns[i], nil
		}
	}
	return conns[0], nil
}

func (n *node) waitAdmitted(ctx context.Context, c network.Conn) error {
	if n.admission == nil {
		return nil
	}
	return n.admission.wait(ctx, c)
}

// countingStream counts what is read.
type countingStream struct {
	io.ReadWriteCloser
	read int
}

func (s *countingStream) Read(b []byte) (int, error) {
	n, err := s.ReadWriteCloser.Read(b)
	s.read += n
	return n, err
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}

func addrStrings(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

func peerStrings(peers []peer.ID) []string {
	out := make([]string, len(peers))
	for i, p := range peers {
		out[i] = p.String()
	}
	return out
}

func sortedProtocols(ids []protocol.ID) []string {
	out := protocol.ConvertToStrings(ids)
	if out == nil {
		out = []string{}
	}
	slices.Sort(out)
	return out
}
