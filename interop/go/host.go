package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/quic-go/quic-go"
)

// newHost puts a host together from its parts. libp2p.New would do it in one
// line, but links WebTransport and WebRTC whether they are used or not.
func newHost(key crypto.PrivKey, agent string, opts ...swarm.Option) (*basichost.BasicHost, *swarm.Swarm, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(peers.AddPrivKey(id, key), peers.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, nil, err
	}

	// The limits under test are the other side's; this peer has none of its own.
	resources := &network.NullResourceManager{}
	bus := eventbus.NewBus()
	opts = append(opts, swarm.WithResourceManager(resources), swarm.WithDialRanker(swarm.NoDelayDialRanker))
	sw, err := swarm.NewSwarm(id, peers, bus, opts...)
	if err != nil {
		return nil, nil, err
	}
	transports, err := newTransports(key, resources)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range transports {
		if err := sw.AddTransport(t); err != nil {
			return nil, nil, err
		}
	}
	h, err := basichost.NewHost(sw, &basichost.HostOpts{EventBus: bus, EnablePing: true, UserAgent: agent})
	return h, sw, err
}

// newTransports is where another transport, security or muxer goes in.
func newTransports(key crypto.PrivKey, resources network.ResourceManager) ([]transport.Transport, error) {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	upgrade, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, resources, nil)
	if err != nil {
		return nil, err
	}
	overTCP, err := tcp.NewTCPTransport(upgrade, resources, nil)
	if err != nil {
		return nil, err
	}
	sockets, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
	if err != nil {
		return nil, err
	}
	overQUIC, err := libp2pquic.NewTransport(key, sockets, nil, nil, resources)
	if err != nil {
		return nil, err
	}
	return []transport.Transport{overTCP, overQUIC}, nil
}

const rsaBits = 2048

var keyTypes = map[string]int{
	"ed25519": crypto.Ed25519, "secp256k1": crypto.Secp256k1, "rsa": crypto.RSA, "ecdsa": crypto.ECDSA,
}

func parseKeyType(name string) (int, error) {
	keyType, ok := keyTypes[name]
	if !ok {
		return 0, fmt.Errorf("expected ed25519, secp256k1, rsa or ecdsa, got %q", name)
	}
	return keyType, nil
}

// newIdentity returns the Ed25519 key that belongs to seed, or without a seed a
// random one of that type.
func newIdentity(seed string, keyType int) (crypto.PrivKey, error) {
	if seed == "" {
		key, _, err := crypto.GenerateKeyPairWithReader(keyType, rsaBits, rand.Reader)
		return key, err
	}
	sum := sha256.Sum256([]byte("vouch-interop-go/" + seed))
	return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(sum[:]))
}
