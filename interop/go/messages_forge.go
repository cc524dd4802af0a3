package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-varint"
)

// forgeWatch is how long a stream is watched after a forged message.
const forgeWatch = 2 * time.Second

// forgery is one message on its way to the wire. A fault changes one thing: the
// message before it is signed, the signed message, or the bytes of the stream.
type forgery struct {
	message wireMessage
	key     crypto.PrivKey
	signed  signedMessage
	bytes   []byte
}

type fault struct {
	before func(*forgery) error
	after  func(*forgery)
	wire   func(*forgery)
}

var faults = map[string]fault{
	"none":       {},
	"signature":  {after: func(f *forgery) { f.signed.signature[len(f.signed.signature)/2] ^= 1 }},
	"unsigned":   {after: func(f *forgery) { f.signed.signature = nil }},
	"bit":        {after: func(f *forgery) { f.flip() }},
	"network_id": before(func(w *wireMessage) { w.networkID = append(slices.Clone(w.networkID), '2') }),
	"protocol":   before(func(w *wireMessage) { w.protocol += "2" }),
	"old":        before(func(w *wireMessage) { w.timestampMS -= uint64((maxAge + time.Minute).Milliseconds()) }),
	"ahead":      before(func(w *wireMessage) { w.timestampMS += uint64((maxAhead + 5*time.Second).Milliseconds()) }),
	"kind":       before(func(w *wireMessage) { w.kind, w.requestID = kindResponse, 1 }),
	// another's message, truly signed by that other
	"author": {before: func(f *forgery) (err error) {
		if f.key, err = otherKey(); err == nil {
			f.message.author, err = crypto.MarshalPublicKey(f.key.GetPublic())
		}
		return err
	}},
	// truly signed, for somebody else
	"recipient": {before: func(f *forgery) error {
		key, err := otherKey()
		if err != nil {
			return err
		}
		other, err := peer.IDFromPrivateKey(key)
		f.message.recipient = []byte(other)
		return err
	}},
	// a frame that isn't a SignedMessage, and one of bytes that aren't a Message
	"malformed":         {wire: func(f *forgery) { f.bytes = frameOf([]byte("\x0a\x7fshorter than it says")) }},
	"malformed-message": {wire: func(f *forgery) { f.bytes = frameOf(f.resign([]byte("\x0a\x7fshorter than it says"))) }},
	"oversize":          {wire: func(f *forgery) { f.bytes = varint.ToUvarint(maxMessage + 1) }},
}

func before(change func(*wireMessage)) fault {
	return fault{before: func(f *forgery) error { change(&f.message); return nil }}
}

// forge sends one message with one fault on a stream of its own, and tells what
// became of the stream: reset or closed by the peer, or open for as long as it is watched.
func (n *node) forge(ctx context.Context, p peer.ID, args []string) (message, error) {
	change, ok := faults[args[0]]
	if !ok {
		known := slices.Sorted(maps.Keys(faults))
		return nil, fmt.Errorf("expected one of %s, got %q", strings.Join(known, ", "), args[0])
	}
	frame, err := n.messenger.forge(p, messageProtocols[0], change)
	if err != nil {
		return nil, err
	}
	s, err := n.openAdmitted(ctx, p, messageProtocol(messageProtocols[0]))
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write(frame); err != nil {
		return nil, err
	}
	s.SetReadDeadline(time.Now().Add(forgeWatch))
	_, err = io.Copy(io.Discard, s)
	result := message{"peer": p}
	switch {
	case err == nil:
		result["outcome"] = "closed"
	case s.Conn().IsClosed():
		result["outcome"] = "disconnected"
	case errors.Is(err, network.ErrReset):
		result["outcome"] = "reset"
	default:
		result["outcome"] = "open"
	}
	return result, nil
}

// forge returns the bytes of a one-way message with that fault, frame and all.
func (m *messenger) forge(to peer.ID, protocol string, change fault) ([]byte, error) {
	w, err := m.compose(to, protocol, kindOneWay, 1, []byte("forged"))
	if err != nil {
		return nil, err
	}
	f := &forgery{message: w, key: m.key}
	if change.before != nil {
		if err := change.before(f); err != nil {
			return nil, err
		}
	}
	if f.signed, err = sign(f.message.marshal(), f.key); err != nil {
		return nil, err
	}
	if change.after != nil {
		change.after(f)
	}
	f.bytes = frameOf(f.signed.marshal())
	if change.wire != nil {
		change.wire(f)
	}
	return f.bytes, nil
}

// flip changes one bit of the payload: what remains is a message in all else.
func (f *forgery) flip() {
	changed := f.message
	changed.payload = slices.Clone(changed.payload)
	changed.payload[0] ^= 1
	f.signed.message = changed.marshal()
}

// resign signs other bytes than the message's.
func (f *forgery) resign(b []byte) []byte {
	signed, err := sign(b, f.key)
	if err != nil {
		panic(err) // the same key has signed just before
	}
	return signed.marshal()
}

func otherKey() (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}
