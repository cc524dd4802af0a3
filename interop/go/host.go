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
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// newHost puts a host together from its parts. libp2p.New would do it in one
// line, but links WebTransport and WebRTC whether they are used or not.
func newHost(key crypto.PrivKey, agent string, ways transportOptions, opts ...swarm.Option) (*basichost.BasicHost, *swarm.Swarm, error) {
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
	transports, err := newTransports(key, ways, resources)
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
