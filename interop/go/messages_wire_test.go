package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

var noon = time.UnixMilli(1_800_000_000_000)

// author makes a key, its peer ID and a message of it to self.
func author(t *testing.T, keyType int) (crypto.PrivKey, peer.ID, wireMessage) {
	t.Helper()
	key, public, err := crypto.GenerateKeyPairWithReader(keyType, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := crypto.MarshalPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, id, wireMessage{
		author: encoded, networkID: []byte("harbour"), clientVersion: "a/1.0.0", protocol: "blocks",
		typ: 7, kind: kindRequest, requestID: 300, timestampMS: uint64(noon.UnixMilli()),
		payload: []byte("ahoy"), recipient: []byte("self"),
	}
}

var testRules = messageRules{networkID: []byte("harbour"), self: "self", signatures: true}

func signedFrame(t *testing.T, key crypto.PrivKey, m wireMessage) []byte {
	t.Helper()
	signed, err := sign(m.marshal(), key)
	if err != nil {
		t.Fatal(err)
	}
	return signed.marshal()
}

func reasonOf(err error) string {
	if r := (*rejection)(nil); errors.As(err, &r) {
		return r.reason
	}
	return ""
}

func TestMessageBytes(t *testing.T) {
	m := wireMessage{
		author: []byte("k"), networkID: []byte{0xff}, clientVersion: "a/1.0.0", protocol: "blocks", typ: math.MaxUint32,
		kind: kindResponse, requestID: 300, timestampMS: 1, payload: []byte("pp"), recipient: []byte("r"), more: true,
	}
	want := "\x0a\x01k\x12\x01\xff\x1a\x07a/1.0.0\x22\x06blocks\x28\xff\xff\xff\xff\x0f\x30\x02\x38\xac\x02\x40\x01\x4a\x02pp\x52\x01r\x58\x01"
	if got := m.marshal(); string(got) != want {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := (wireMessage{}).marshal(); len(got) != 0 {
		t.Errorf("got %x, want nothing", got)
	}
	if got := (signedMessage{[]byte("m"), []byte("s")}).marshal(); string(got) != "\x0a\x01m\x12\x01s" {
		t.Errorf("got %x", got)
	}
}

func TestKeysOfAllTypes(t *testing.T) {
	for _, keyType := range []int{crypto.Ed25519, crypto.Secp256k1, crypto.RSA, crypto.ECDSA} {
		key, from, m := author(t, keyType)
		got, err := testRules.check(signedFrame(t, key, m), from, "blocks", noon)
		if err != nil || got.requestID != 300 || string(got.payload) != "ahoy" {
			t.Errorf("key type %d: %v, %v", keyType, got, err)
		}
	}
}

func TestMessageRules(t *testing.T) {
	key, from, good := author(t, crypto.Ed25519)
	otherKey, _, other := author(t, crypto.Ed25519)
	at := func(d time.Duration) func(*wireMessage) {
		return func(m *wireMessage) { m.timestampMS = uint64(noon.Add(d).UnixMilli()) }
	}
	for name, test := range map[string]struct {
		change func(*wireMessage)
		want   string
	}{
		"as it is":               {func(*wireMessage) {}, ""},
		"another network":        {func(m *wireMessage) { m.networkID = []byte("harbour2") }, reasonNetworkID},
		"no network":             {func(m *wireMessage) { m.networkID = nil }, reasonNetworkID},
		"another protocol":       {func(m *wireMessage) { m.protocol = "sync" }, reasonProtocol},
		"another author":         {func(m *wireMessage) { m.author = other.author }, reasonAuthor},
		"no author":              {func(m *wireMessage) { m.author = nil }, reasonAuthor},
		"another recipient":      {func(m *wireMessage) { m.recipient = []byte("third") }, reasonRecipient},
		"no recipient":           {func(m *wireMessage) { m.recipient = nil }, reasonRecipient},
		"unknown kind":           {func(m *wireMessage) { m.kind = 3 }, reasonKind},
		"one way":                {func(m *wireMessage) { m.kind, m.requestID = kindOneWay, 0 }, ""},
		"one way with an ID":     {func(m *wireMessage) { m.kind = kindOneWay }, reasonMalformed},
		"request with more":      {func(m *wireMessage) { m.more = true }, reasonMalformed},
		"response with more":     {func(m *wireMessage) { m.kind, m.more = kindResponse, true }, ""},
		"not UTF-8":              {func(m *wireMessage) { m.clientVersion = "\xff" }, reasonMalformed},
		"oldest":                 {at(-10 * time.Minute), ""},
		"too old":                {at(-10*time.Minute - time.Millisecond), reasonTimestamp},
		"furthest ahead":         {at(30 * time.Second), ""},
		"too far ahead":          {at(30*time.Second + time.Millisecond), reasonTimestamp},
		"no time":                {func(m *wireMessage) { m.timestampMS = 0 }, reasonTimestamp},
		"the last of all times":  {func(m *wireMessage) { m.timestampMS = math.MaxUint64 }, reasonTimestamp},
		"the end of signed time": {func(m *wireMessage) { m.timestampMS = math.MaxInt64 }, reasonTimestamp},
	} {
		m := good
		test.change(&m)
		if _, err := testRules.check(signedFrame(t, key, m), from, "blocks", noon); reasonOf(err) != test.want {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}

	signed, err := sign(good.marshal(), key)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := key.Sign(signed.message) // without the prefix
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		frame []byte
		want  string
	}{
		"another's signature":    {signedFrame(t, otherKey, good), reasonSignature},
		"another's message":      {signedFrame(t, otherKey, other), reasonAuthor},
		"no signature":           {signedMessage{message: signed.message}.marshal(), reasonSignature},
		"signed without prefix":  {signedMessage{signed.message, bare}.marshal(), reasonSignature},
		"nothing":                {nil, reasonAuthor},
		"not a SignedMessage":    {[]byte{0x0a, 0x05, 0x00}, reasonMalformed},
		"not a Message":          {signedMessage{[]byte{0x0a, 0x05, 0x00}, signed.signature}.marshal(), reasonMalformed},
		"an unknown field":       {append(signed.marshal(), bytesField(3, "x")...), ""},
		"signature first":        {append(appendBytes(nil, 2, signed.signature), appendBytes(nil, 1, signed.message)...), ""},
		"the last message holds": {append(appendBytes(nil, 1, []byte("x")), signed.marshal()...), ""},
	} {
		if _, err := testRules.check(test.frame, from, "blocks", noon); reasonOf(err) != test.want {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}

	// what is signed is the message's bytes, also those that this side wouldn't make
	unusual := append(protowire.AppendVarint(protowire.AppendTag(good.marshal(), 99, protowire.VarintType), 1), bytesField(9, "last")...)
	if signed, err = sign(unusual, key); err != nil {
		t.Fatal(err)
	}
	if m, err := testRules.check(signed.marshal(), from, "blocks", noon); err != nil || string(m.payload) != "last" {
		t.Errorf("unknown and repeated fields: %v, %v", m, err)
	}
}

func TestEveryBitCounts(t *testing.T) {
	key, from, m := author(t, crypto.Ed25519)
	frame := signedFrame(t, key, m)
	for bit := range 8 * len(frame) {
		changed := bytes.Clone(frame)
		changed[bit/8] ^= 1 << (bit % 8)
		if _, err := testRules.check(changed, from, "blocks", noon); reasonOf(err) == "" {
			t.Errorf("bit %d: got %v, want a rejection", bit, err)
		}
	}
}

func TestUnsignedMessages(t *testing.T) {
	_, from, m := author(t, crypto.Ed25519)
	frame := signedMessage{message: m.marshal()}.marshal()
	rules := testRules
	rules.signatures = false
	if _, err := rules.check(frame, from, "blocks", noon); err != nil {
		t.Error(err)
	}
	if _, err := rules.check(frame, "third", "blocks", noon); reasonOf(err) != reasonAuthor {
		t.Errorf("from another peer: got %v", err)
	}
}

func FuzzMessageRules(f *testing.F) {
	rules := messageRules{networkID: []byte("harbour"), self: "self"}
	f.Add([]byte("\x0a\x02\x08\x01\x12\x01s"))
	f.Add([]byte("\x0a\x80\x80"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, err := rules.check(frame, "peer", "blocks", noon); reasonOf(err) == "" {
			t.Errorf("got %v, want a rejection", err)
		}
	})
}
