package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// newTestNode returns a node that listens on loopback, and its messages.
func newTestNode(t *testing.T, handshake bool) (*node, *json.Decoder) {
	t.Helper()
	r, w := io.Pipe()
	n, err := newNode(options{
		keyType:   crypto.Ed25519,
		listen:    []ma.Multiaddr{ma.StringCast(defaultListen)},
		policy:    policy{own: validHello},
		handshake: handshake,
	}, &output{w: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		n.close()
	})
	return n, json.NewDecoder(r)
}

// wantEvent returns the next event, which must be of that name; who is identified
// when is another matter.
func wantEvent(t *testing.T, events *json.Decoder, want string) message {
	t.Helper()
	for {
		var event message
		if err := events.Decode(&event); err != nil {
			t.Fatal(err)
		}
		if event["event"] == "identified" && want != "identified" {
			continue
		}
		if event["event"] != want {
			t.Fatalf("got %v, want %s", event, want)
		}
		return event
	}
}

// dial connects without waiting for admission.
func dial(t *testing.T, from, to *node) network.Conn {
	t.Helper()
	from.swarm.Peerstore().AddAddrs(to.host.ID(), to.host.Addrs(), peerstore.TempAddrTTL)
	c, err := from.swarm.DialPeer(t.Context(), to.host.ID())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// speak opens a stream and names a protocol, without waiting for any answer.
func speak(t *testing.T, c network.Conn, id protocol.ID) (network.Stream, *bufio.Reader) {
	t.Helper()
	s, err := c.NewStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{multistream.ProtocolID, string(id)} {
		if err := writeFrame(s, []byte(token+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	return s, bufio.NewReader(s)
}

func want(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	frame, err := readFrame(r, 1024)
	if err != nil || string(frame) != want {
		t.Fatalf("got %q, %v; want %q", frame, err, want)
	}
}

func TestStreamsAreHeldUntilAdmission(t *testing.T) {
	recipient, events := newTestNode(t, true)
	initiator, _ := newTestNode(t, false)
	c := dial(t, initiator, recipient)
	const header = multistream.ProtocolID + "\n"

	// The initiator's host has opened identify by itself: one of those held.
	waitFor(t, func() bool { return recipient.heldFrom(initiator) == 1 })
	held, answers := speak(t, c, echoID)
	for range maxHeldStreams - 2 {
		speak(t, c, echoID)
	}
	waitFor(t, func() bool { return recipient.heldFrom(initiator) == maxHeldStreams })

	excess, _ := speak(t, c, echoID)
	excess.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := io.ReadAll(excess); err == nil || isTimeout(err) {
		t.Fatalf("got %v, want a reset", err)
	}
	want(t, answers, header)
	held.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if b, err := answers.ReadByte(); !isTimeout(err) {
		t.Fatalf("got %x, %v; want nothing before admission", b, err)
	}
	held.SetReadDeadline(time.Time{})

	handshake, err := openStream(t.Context(), c, handshakeID)
	if err != nil {
		t.Fatal(err)
	}
	if err := (policy{own: validHello}).initiate(handshake); err != nil {
		t.Fatal(err)
	}
	wantEvent(t, events, "admitted")

	want(t, answers, string(echoID)+"\n")
	if err := writeFrame(held, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	want(t, answers, "hi")

	speak(t, c, handshakeID) // a second one
	wantEvent(t, events, "disconnected")
}

func TestHandshakeOpenedByRecipientEndsConnection(t *testing.T) {
	initiator, events := newTestNode(t, true)
	recipient, recipientEvents := newTestNode(t, true)
	dial(t, initiator, recipient)
	wantEvent(t, events, "admitted")
	wantEvent(t, recipientEvents, "admitted")

	speak(t, recipient.swarm.ConnsToPeer(initiator.host.ID())[0], handshakeID)
	wantEvent(t, events, "disconnected")
	wantEvent(t, recipientEvents, "disconnected")
}

func TestSilentPeerIsRefusedAtDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the whole deadline")
	}
	recipient, events := newTestNode(t, true)
	initiator, _ := newTestNode(t, false)
	dial(t, initiator, recipient)
	wantEvent(t, events, "refused")
	wantEvent(t, events, "disconnected")
}

// heldFrom counts the streams of a peer that n holds.
func (n *node) heldFrom(p *node) int {
	for _, c := range n.swarm.ConnsToPeer(p.host.ID()) {
		if ca := n.admission.of(c); ca != nil {
			return int(ca.held.Load())
		}
	}
	return 0
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("not in time")
}
