package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
)

// identifications remembers what identify said on each connection. The
// peerstore can't tell: it mixes connections, and keeps what an earlier one said.
type identifications struct {
	host *basichost.BasicHost

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each event
	said    map[network.Conn]event.EvtPeerIdentificationCompleted
	emit    func(message)
	failed  map[peer.ID]error // the event doesn't name the connection
}

// pushedID is what push-identify adds to the protocols that are served.
const pushedID = "/vouch/pushed/1.0.0"

func watchIdentify(h *basichost.BasicHost, emit func(message)) (*identifications, error) {
	events, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	})
	if err != nil {
		return nil, err
	}
	ids := &identifications{
		host:    h,
		emit:    emit,
		changed: make(chan struct{}),
		said:    make(map[network.Conn]event.EvtPeerIdentificationCompleted),
		failed:  make(map[peer.ID]error),
	}
	go func() {
		for e := range events.Out() {
			ids.mu.Lock()
			completed, ok := e.(event.EvtPeerIdentificationCompleted) // asked for or pushed
			if ok {
				ids.said[completed.Conn] = completed
			} else if e, ok := e.(event.EvtPeerIdentificationFailed); ok {
				ids.failed[e.Peer] = e.Reason
			}
			close(ids.changed)
			ids.changed = make(chan struct{})
			ids.mu.Unlock()
			if ok { // told when nobody waits for the lock: telling takes as long as the reader does
				ids.emit(message{
					"event": "identified", "peer": completed.Peer, "agent": completed.AgentVersion,
					"protocols": sortedProtocols(completed.Protocols),
				})
			}
		}
	}()
	return ids, nil
}

func (ids *identifications) disconnected(c network.Conn) {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	delete(ids.said, c)
}

// wait returns what c's peer said in identify, once it has.
func (ids *identifications) wait(ctx context.Context, c network.Conn) (event.EvtPeerIdentificationCompleted, error) {
	select {
	case <-ids.host.IDService().IdentifyWait(c):
	case <-ctx.Done():
		return event.EvtPeerIdentificationCompleted{}, fmt.Errorf("identify: %w", ctx.Err())
	}
	// The outcome was queued for us before the channel closed, so what has not
	// come a moment later was a failure.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		ids.mu.Lock()
		said, ok := ids.said[c]
		reason, changed := ids.failed[c.RemotePeer()], ids.changed
		ids.mu.Unlock()
		if ok {
			return said, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if reason == nil {
				reason = errors.New("no answer")
			}
			return event.EvtPeerIdentificationCompleted{}, fmt.Errorf("identify failed: %w", reason)
		}
	}
}
