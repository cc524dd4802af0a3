package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// gossipTracer counts RPCs, and keeps who is in the mesh: the library tells it in
// no other way. Its calls come from the library's loop.
type gossipTracer struct {
	mu      sync.Mutex
	in, out rpcCounts
	dropped int
	meshes  map[string]map[peer.ID]struct{}
}

// rpcCounts counts the entries of RPCs: an IHAVE of a topic is one, whatever the
// number of its IDs.
type rpcCounts struct {
	Graft     int `json:"graft"`
	Prune     int `json:"prune"`
	IHave     int `json:"ihave"`
	IWant     int `json:"iwant"`
	IDontWant int `json:"idontwant"`
	Messages  int `json:"messages"`
}

func newGossipTracer() *gossipTracer {
	return &gossipTracer{meshes: make(map[string]map[peer.ID]struct{})}
}

func (c *rpcCounts) add(rpc *pubsub.RPC) {
	control := rpc.GetControl()
	c.Graft += len(control.GetGraft())
	c.Prune += len(control.GetPrune())
	c.IHave += len(control.GetIhave())
	c.IWant += len(control.GetIwant())
	c.IDontWant += len(control.GetIdontwant())
	c.Messages += len(rpc.GetPublish())
}

func (t *gossipTracer) counts() message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return message{"in": t.in, "out": t.out, "dropped": t.dropped}
}

func (t *gossipTracer) mesh(topic string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := []string{}
	for p := range t.meshes[topic] {
		peers = append(peers, p.String())
	}
	slices.Sort(peers)
	return peers
}

func (t *gossipTracer) RecvRPC(rpc *pubsub.RPC) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.in.add(rpc)
}

func (t *gossipTracer) SendRPC(rpc *pubsub.RPC, _ peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out.add(rpc)
}

func (t *gossipTracer) DropRPC(rpc *pubsub.RPC, _ peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped += len(rpc.GetPublish())
}

func (t *gossipTracer) Graft(p peer.ID, topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.meshes[topic] == nil {
		t.meshes[topic] = make(map[peer.ID]struct{})
	}
	t.meshes[topic][p] = struct{}{}
}

func (t *gossipTracer) Prune(p peer.ID, topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.meshes[topic], p)
}

func (t *gossipTracer) OnClosedOutboundStream(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, mesh := range t.meshes {
		delete(mesh, p)
	}
}

func (t *gossipTracer) UndeliverableMessage(m *pubsub.Message) {
	slog.Warn("message dropped: too many wait to be printed", "topic", m.GetTopic(), "at most", subscriptionBuffer)
}

func (*gossipTracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (*gossipTracer) Join(string)                              {}
func (*gossipTracer) Leave(string)                             {}
func (*gossipTracer) ValidateMessage(*pubsub.Message)          {}
func (*gossipTracer) DeliverMessage(*pubsub.Message)           {}
func (*gossipTracer) RejectMessage(*pubsub.Message, string)    {}
func (*gossipTracer) DuplicateMessage(*pubsub.Message)         {}
func (*gossipTracer) ThrottlePeer(peer.ID)                     {}

// scoreBoard holds the scores as the library told them last.
type scoreBoard struct {
	mu      sync.Mutex
	scores  map[peer.ID]float64
	changed chan struct{} // closed and replaced with each telling
}

func newScoreBoard() *scoreBoard {
	return &scoreBoard{changed: make(chan struct{})}
}

func (b *scoreBoard) set(scores map[peer.ID]float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scores = scores
	close(b.changed)
	b.changed = make(chan struct{})
}

// next returns p's score as it is told next: what was told last is older than
// what the caller may already have seen happen.
func (b *scoreBoard) next(ctx context.Context, p peer.ID) (float64, error) {
	b.mu.Lock()
	changed := b.changed
	b.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	score, ok := b.scores[p]
	if !ok {
		return 0, errors.New("no score: not known to pubsub")
	}
	return score, nil
}
