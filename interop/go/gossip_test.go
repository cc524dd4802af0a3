package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// newGossipNode returns a node that speaks pubsub. Its messages must be read.
func newGossipNode(t *testing.T, mode string, handshake bool) (*node, *json.Decoder) {
	t.Helper()
	r, w := io.Pipe()
	opts := options{
		listen:    []ma.Multiaddr{ma.StringCast(defaultListen)},
		policy:    policy{own: validHello},
		handshake: handshake,
		gossip:    defaultGossipOptions(),
	}
	opts.gossip.mode = mode
	opts.gossip.params.HeartbeatInterval = 100 * time.Millisecond
	n, err := newNode(opts, &output{w: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		n.close()
	})
	return n, json.NewDecoder(r)
}

// command runs a command that must succeed, and returns its reply.
func (n *node) command(t *testing.T, line string) message {
	t.Helper()
	words := strings.Fields(line)
	reply := runCommand(words[0], words[1:], n.commands(), 5*time.Second)
	if reply["ok"] != true {
		t.Fatalf("%s: %v", line, reply["error"])
	}
	return reply
}

// commandFails runs a command that must not succeed.
func (n *node) commandFails(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if reply := runCommand(words[0], words[1:], n.commands(), 5*time.Second); reply["ok"] == true {
		t.Fatalf("%s: expected it to fail, got %v", line, reply)
	}
}

func TestGossip(t *testing.T) {
	for _, mode := range []string{"signed", "unsigned"} {
		t.Run(mode, func(t *testing.T) {
			one, _ := newGossipNode(t, mode, false)
			two, events := newGossipNode(t, mode, false)
			one.command(t, "subscribe t")
			two.command(t, "subscribe t")
			dial(t, one, two)
			inMesh := func(n *node) bool { return len(n.command(t, "mesh t")["peers"].([]string)) == 1 }
			for !inMesh(one) || !inMesh(two) {
				time.Sleep(10 * time.Millisecond)
			}

			sent := one.command(t, "publish t 1000 7")
			event := wantEvent(t, events, "gossip")
			for field, want := range map[string]any{
				"event": "gossip", "topic": "t", "from": one.host.ID().String(), "id": sent["id"],
				"size": 1000.0, "sha256": sent["sha256"],
			} {
				if event[field] != want {
					t.Errorf("%s: got %v, want %v", field, event[field], want)
				}
			}
			if got := two.command(t, "received t"); got["count"] != 1 || got["unique"] != 1 {
				t.Errorf("received: got %v", got)
			}

			two.command(t, "validate t reject")
			one.command(t, "publish-bytes t aGVsbG8=")
			for two.command(t, "score "+one.host.ID().String())["score"].(float64) >= 0 {
			}
			if got := two.command(t, "received t"); got["count"] != 1 {
				t.Errorf("a rejected message was delivered: %v", got)
			}
		})
	}
}

// A peer may answer identify before it is admitted, which is what makes pubsub
// open its stream.
func TestPubsubWaitsForAdmission(t *testing.T) {
	recipient, _ := newGossipNode(t, "unsigned", true)
	stranger, _ := newGossipNode(t, "unsigned", false)
	dial(t, stranger, recipient)
	ctx, cancel := context.WithTimeout(t.Context(), admissionDeadline/2)
	defer cancel()
	var theirs network.Conn
	for theirs == nil {
		theirs, _ = recipient.conn(stranger.host.ID())
	}
	if _, err := recipient.identify.wait(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	for _, s := range theirs.GetStreams() {
		if strings.HasPrefix(string(s.Protocol()), "/meshsub/") {
			t.Errorf("a stream of %s before admission", s.Protocol())
		}
	}
}

func TestPseudoRandom(t *testing.T) {
	// the first numbers of SplitMix64 for 1234567, as everybody's implementation gives them
	const want = "85fc08fb17d09e59"
	data := pseudoRandom(1234567, 1000)
	if got := hex.EncodeToString(data[:8]); got != want || len(data) != 1000 {
		t.Errorf("got %s, %d bytes; want %s, 1000 bytes", got, len(data), want)
	}
}

func TestGossipParams(t *testing.T) {
	o := defaultGossipOptions()
	for _, s := range []string{"D=3", "Dlo=2", "Dout=1", "HeartbeatInterval=200", "OutboundQueue=1000"} {
		if err := o.setParam(s); err != nil {
			t.Error(err)
		}
	}
	if o.params.D != 3 || o.params.HeartbeatInterval != 200*time.Millisecond || o.outbound != 1000 {
		t.Errorf("got %+v", o)
	}
	for _, s := range []string{"", "D", "D=", "D=-1", "D=1.5", "d=3", "HeartbeatInterval=0"} {
		if o.setParam(s) == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
