package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	signedPrefix = "vouch-message:1:" // before the message, in what is signed
	maxMessage   = 2 << 20            // of a frame
	maxAge       = 10 * time.Minute
	maxAhead     = 30 * time.Second
	errorType    = math.MaxUint32 // of an answer that says why there is none
)

type messageKind uint64

const (
	kindOneWay messageKind = iota
	kindRequest
	kindResponse
)

// Why a message is rejected or dropped: the words of the event "rejected".
const (
	reasonOversize  = "oversize"
	reasonMalformed = "malformed"
	reasonAuthor    = "author"
	reasonSignature = "signature"
	reasonNetworkID = "network_id"
	reasonProtocol  = "protocol"
	reasonRecipient = "recipient"
	reasonKind      = "kind"
	reasonTimestamp = "timestamp"
	reasonUnasked   = "unasked" // an answer that is late, or that nobody asked for
)

// rejection says what a peer's message breaks.
type rejection struct {
	reason string
	detail string
}

func (r *rejection) Error() string { return r.reason + ": " + r.detail }

// dropped tells whether only the message goes, since it isn't its sender's fault;
// any other rejection ends the stream.
func (r *rejection) dropped() bool {
	return r.reason == reasonTimestamp || r.reason == reasonUnasked
}

func reject(reason, format string, args ...any) error {
	return &rejection{reason, fmt.Sprintf(format, args...)}
}

// wireMessage is the protobuf Message: what is signed.
type wireMessage struct {
	author        []byte // a libp2p PublicKey
	networkID     []byte
	clientVersion string
	protocol      string
	typ           uint32
	kind          messageKind
	requestID     uint64
	timestampMS   uint64
	payload       []byte
	recipient     []byte // a peer ID
	more          bool
}

func (m wireMessage) marshal() []byte {
	var b []byte
	b = appendBytes(b, 1, m.author)
	b = appendBytes(b, 2, m.networkID)
	b = appendBytes(b, 3, []byte(m.clientVersion))
	b = appendBytes(b, 4, []byte(m.protocol))
	b = appendVarint(b, 5, uint64(m.typ))
	b = appendVarint(b, 6, uint64(m.kind))
	b = appendVarint(b, 7, m.requestID)
	b = appendVarint(b, 8, m.timestampMS)
	b = appendBytes(b, 9, m.payload)
	b = appendBytes(b, 10, m.recipient)
	return appendVarint(b, 11, protowire.EncodeBool(m.more))
}

// parseMessage parses as any proto3 parser does: the last of duplicates counts,
// and what is unknown, or has another wire type than its field, is skipped.
func parseMessage(b []byte) (wireMessage, error) {
	var m wireMessage
	err := eachField(b, func(f field) {
		switch f.key() {
		case bytesKey(1):
			m.author = f.bytes
		case bytesKey(2):
			m.networkID = f.bytes
		case bytesKey(3):
			m.clientVersion = string(f.bytes)
		case bytesKey(4):
			m.protocol = string(f.bytes)
		case varintKey(5):
			m.typ = uint32(f.varint)
		case varintKey(6):
			m.kind = messageKind(uint32(f.varint))
		case varintKey(7):
			m.requestID = f.varint
		case varintKey(8):
			m.timestampMS = f.varint
		case bytesKey(9):
			m.payload = f.bytes
		case bytesKey(10):
			m.recipient = f.bytes
		case varintKey(11):
			m.more = protowire.DecodeBool(f.varint)
		}
	})
	if err == nil && !(utf8.ValidString(m.clientVersion) && utf8.ValidString(m.protocol)) {
		err = errors.New("a string isn't UTF-8")
	}
	return m, err
}

// signedMessage is what a frame holds.
type signedMessage struct {
	message   []byte
	signature []byte
}

func (s signedMessage) marshal() []byte {
	return appendBytes(appendBytes(nil, 1, s.message), 2, s.signature)
}

func parseSignedMessage(b []byte) (signedMessage, error) {
	var s signedMessage
	err := eachField(b, func(f field) {
		switch f.key() {
		case bytesKey(1):
			s.message = f.bytes
		case bytesKey(2):
			s.signature = f.bytes
		}
	})
	return s, err
}

// sign seals what is to be sent.
func sign(message []byte, key crypto.PrivKey) (signedMessage, error) {
	signature, err := key.Sign(append([]byte(signedPrefix), message...))
	return signedMessage{message, signature}, err
}

// messageRules is what a direct message is checked against.
type messageRules struct {
	networkID  []byte
	self       peer.ID
	signatures bool // false: none is asked for
}

// check opens what came from a peer on a stream of a sub-protocol. The error is
// a *rejection.
func (r messageRules) check(frame []byte, from peer.ID, protocol string, now time.Time) (wireMessage, error) {
	signed, err := parseSignedMessage(frame)
	if err != nil {
		return wireMessage{}, reject(reasonMalformed, "not a SignedMessage: %v", err)
	}
	m, err := parseMessage(signed.message)
	if err != nil {
		return wireMessage{}, reject(reasonMalformed, "not a Message: %v", err)
	}
	author, err := crypto.UnmarshalPublicKey(m.author)
	if err != nil {
		return wireMessage{}, reject(reasonAuthor, "expected a public key: %v", err)
	}
	if !from.MatchesPublicKey(author) {
		return wireMessage{}, reject(reasonAuthor, "expected the connection's peer %s, got another's key", from)
	}
	if r.signatures {
		ok, err := author.Verify(append([]byte(signedPrefix), signed.message...), signed.signature)
		if err != nil || !ok {
			return wireMessage{}, reject(reasonSignature, "%d bytes that aren't the author's over this message (%v)", len(signed.signature), err)
		}
	}
	return m, r.checkFields(m, protocol, now)
}

func (r messageRules) checkFields(m wireMessage, protocol string, now time.Time) error {
	age := now.Sub(time.UnixMilli(int64(min(m.timestampMS, math.MaxInt64))))
	switch {
	case !bytes.Equal(m.networkID, r.networkID):
		return reject(reasonNetworkID, "expected %q, got %q", r.networkID, m.networkID)
	case m.protocol != protocol:
		return reject(reasonProtocol, "expected the stream's %q, got %q", protocol, m.protocol)
	case string(m.recipient) != string(r.self):
		return reject(reasonRecipient, "expected %x, got %x", string(r.self), m.recipient)
	case m.kind > kindResponse:
		return reject(reasonKind, "expected 0 to %d, got %d", kindResponse, m.kind)
	case m.kind == kindOneWay && m.requestID != 0:
		return reject(reasonMalformed, "expected no request_id in a one-way message, got %d", m.requestID)
	case m.kind != kindResponse && m.more:
		return reject(reasonMalformed, "expected more only in an answer, got it in kind %d", m.kind)
	case age > maxAge || age < -maxAhead:
		return reject(reasonTimestamp, "expected at most %s back and %s ahead, got %s back", maxAge, maxAhead, age)
	}
	return nil
}

// field is one field of a protobuf message; those of other wire types than the
// two that are used have neither value.
type field struct {
	number   protowire.Number
	wireType protowire.Type
	varint   uint64
	bytes    []byte // shares the memory of what was parsed
}

func (f field) key() uint64 { return protowire.EncodeTag(f.number, f.wireType) }

func bytesKey(n protowire.Number) uint64  { return protowire.EncodeTag(n, protowire.BytesType) }
func varintKey(n protowire.Number) uint64 { return protowire.EncodeTag(n, protowire.VarintType) }

func eachField(b []byte, take func(field)) error {
	for len(b) > 0 {
		number, wireType, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		f := field{number: number, wireType: wireType}
		switch wireType {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, wireType, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		take(f)
	}
	return nil
}

// appendBytes and appendVarint leave out what is empty or zero, as proto3 does.
func appendBytes(b []byte, number protowire.Number, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

func appendVarint(b []byte, number protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), value)
}
