package main

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// newDHTNodes returns nodes of a DHT, the first of which all others know.
func newDHTNodes(t *testing.T, count int) []*node {
	t.Helper()
	var nodes []*node
	for range count {
		n, err := newNode(options{
			listen: []ma.Multiaddr{ma.StringCast(defaultListen)},
			policy: policy{own: validHello},
			kad:    "/vouch/test",
			gossip: defaultGossipOptions(),
		}, &output{w: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.close)
		nodes = append(nodes, n)
	}
	for _, n := range nodes[1:] {
		dial(t, n, nodes[0])
		// both tables have the other once both have been identified
		for _, end := range []*node{n, nodes[0]} {
			other := nodes[0]
			if end == other {
				other = n
			}
			waitFor(t, func() bool {
				return slices.Contains(end.command(t, "table")["peers"].([]string), other.host.ID().String())
			})
		}
	}
	return nodes
}

func TestDHTValues(t *testing.T) {
	nodes := newDHTNodes(t, 3)
	value := base64.StdEncoding.EncodeToString([]byte("buoy"))
	// a look-up may lose a peer whose own dial crosses with its own: it has it the next time
	waitFor(t, func() bool {
		return len(nodes[1].command(t, "put /v/harbour "+value)["sent_to"].([]string)) == 2
	})
	if got := nodes[2].command(t, "get /v/harbour")["value"]; got != value {
		t.Fatalf("expected %v, got %v", value, got)
	}
	better := base64.StdEncoding.EncodeToString([]byte("lantern"))
	nodes[2].command(t, "put /v/harbour "+better)
	if got := nodes[0].command(t, "get /v/harbour")["value"]; got != better {
		t.Fatalf("expected %v, got %v", better, got)
	}
	for _, line := range []string{"get /v/unknown", "put /w/harbour " + value, "put /v/harbour " + value, "put /v/harbour !", "get /pk/harbour"} {
		nodes[1].commandFails(t, line)
	}
}

func TestDHTPublicKeys(t *testing.T) {
	nodes := newDHTNodes(t, 2)
	id := nodes[0].host.ID()
	encoded, err := crypto.MarshalPublicKey(nodes[0].host.Peerstore().PubKey(id))
	if err != nil {
		t.Fatal(err)
	}
	value := base64.StdEncoding.EncodeToString(encoded)
	nodes[0].command(t, "put /pk/"+id.String()+" "+value)
	if got := nodes[1].command(t, "get /pk/"+id.String())["value"]; got != value {
		t.Fatalf("expected %v, got %v", value, got)
	}
	nodes[0].commandFails(t, "put /pk/"+nodes[1].host.ID().String()+" "+value)
}

func TestDHTProviders(t *testing.T) {
	nodes := newDHTNodes(t, 3)
	hash, err := multihash.Sum([]byte("lantern"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	key := hex.EncodeToString(hash)
	if providers := nodes[2].command(t, "find-providers "+key)["providers"].([]message); len(providers) != 0 {
		t.Fatalf("expected none yet, got %v", providers)
	}
	nodes[1].command(t, "provide "+key)
	providers := nodes[2].command(t, "find-providers "+key)["providers"].([]message)
	if len(providers) != 1 || providers[0]["peer"] != nodes[1].host.ID() {
		t.Fatalf("expected %v, got %v", nodes[1].host.ID(), providers)
	}
	if got, want := providers[0]["addrs"].([]string), addrStrings(nodes[1].host.Addrs()); !slices.Equal(got, want) {
		t.Fatalf("expected %v, got %v", want, got)
	}
	nodes[1].commandFails(t, "provide lantern")
	nodes[1].commandFails(t, "find-providers "+key+" 0")
}

func TestDHTFinds(t *testing.T) {
	nodes := newDHTNodes(t, 4)
	target := nodes[3].host.ID()
	if found := nodes[1].command(t, "find-peer "+target.String()); found["found"] != true {
		t.Fatalf("expected to find it, got %v", found)
	}
	closest := nodes[2].command(t, "closest "+hex.EncodeToString([]byte(target)))["peers"].([]string)
	if len(closest) != 3 || closest[0] != target.String() {
		t.Fatalf("expected all others, %v first, got %v", target, closest)
	}
	stranger, err := newIdentity("stranger", crypto.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := peer.IDFromPrivateKey(stranger)
	if err != nil {
		t.Fatal(err)
	}
	if found := nodes[1].command(t, "find-peer "+unknown.String()); found["found"] != false {
		t.Fatalf("expected not to find it, got %v", found)
	}
}
