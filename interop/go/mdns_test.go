package main

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestConnectFound(t *testing.T) {
	one, other := newPlainNode(t, ""), newPlainNode(t, "")
	info := peer.AddrInfo{ID: other.host.ID(), Addrs: other.host.Addrs()}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 2 { // the second time it is connected already
		if err := one.connectFound(ctx, info); err != nil {
			t.Fatal(err)
		}
	}
	if len(one.swarm.ConnsToPeer(other.host.ID())) != 1 {
		t.Fatal("expected one connection")
	}
}
