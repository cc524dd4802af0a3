package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	handshakeID       protocol.ID = "/vouch/handshake/1.0.0"
	maxHello                      = 256
	maxNetworkID                  = 64
	admissionDeadline             = 5 * time.Second

	fieldClientVersion protowire.Number = 1
	fieldNetworkID     protowire.Number = 2
)

const versionNumber = `(?:0|[1-9][0-9]*)`

var (
	versionPattern       = regexp.MustCompile(`^` + versionNumber + `\.` + versionNumber + `\.` + versionNumber + `$`)
	clientNamePattern    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)
	errNoHello           = errors.New("not a Hello")
	errNetworkIDMismatch = errors.New("network ID mismatch")
	errVersionTooLow     = errors.New("client version too low")
)

// hello is the only message of the handshake, the same in both directions.
type hello struct {
	clientVersion string // NAME/N.N.N
	networkID     []byte
}

func (h hello) validate() error {
	name, version, _ := strings.Cut(h.clientVersion, "/")
	if !clientNamePattern.MatchString(name) || !versionPattern.MatchString(version) {
		return fmt.Errorf("%w: client version %q, expected NAME/N.N.N", errNoHello, h.clientVersion)
	}
	if n := len(h.networkID); n < 1 || n > maxNetworkID {
		return fmt.Errorf("%w: network ID of %d bytes, expected 1 to %d", errNoHello, n, maxNetworkID)
	}
	return nil
}

func (h hello) marshal() []byte {
	var b []byte
	b = protowire.AppendTag(b, fieldClientVersion, protowire.BytesType)
	b = protowire.AppendString(b, h.clientVersion)
	b = protowire.AppendTag(b, fieldNetworkID, protowire.BytesType)
	return protowire.AppendBytes(b, h.networkID)
}

// parseHello returns a valid Hello or an error that wraps errNoHello. As in any
// proto3 parser unknown fields are skipped and the last of duplicates counts.
func parseHello(b []byte) (hello, error) {
	var h hello
	for len(b) > 0 {
		number, wireType, n := protowire.ConsumeTag(b)
		if n < 0 {
			return hello{}, fmt.Errorf("%w: %w", errNoHello, protowire.ParseError(n))
		}
		b = b[n:]
		if number != fieldClientVersion && number != fieldNetworkID {
			if n = protowire.ConsumeFieldValue(number, wireType, b); n < 0 {
				return hello{}, fmt.Errorf("%w: %w", errNoHello, protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		if wireType != protowire.BytesType {
			return hello{}, fmt.Errorf("%w: field %d has wire type %d", errNoHello, number, wireType)
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return hello{}, fmt.Errorf("%w: %w", errNoHello, protowire.ParseError(n))
		}
		b = b[n:]
		switch number {
		case fieldClientVersion:
			if !utf8.Valid(value) {
				return hello{}, fmt.Errorf("%w: client version isn't UTF-8", errNoHello)
			}
			h.clientVersion = string(value)
		case fieldNetworkID:
			h.networkID = bytes.Clone(value)
		}
	}
	if err := h.validate(); err != nil {
		return hello{}, err
	}
	return h, nil
}

// policy is what this peer says of itself and asks of others.
type policy struct {
	own         hello
	minVersions map[string]string // client name to its lowest N.N.N
}

func (p policy) check(h hello) error {
	if !bytes.Equal(h.networkID, p.own.networkID) {
		return fmt.Errorf("%w: expected %q, got %q", errNetworkIDMismatch, p.own.networkID, h.networkID)
	}
	name, version, _ := strings.Cut(h.clientVersion, "/")
	if lowest, ok := p.minVersions[name]; ok && compareVersions(version, lowest) < 0 {
		return fmt.Errorf("%w: %s, expected at least %s", errVersionTooLow, h.clientVersion, lowest)
	}
	return nil
}

// compareVersions orders two N.N.N. Numbers have no leading zeros but any size:
// the longer is the larger, and among equally long ones digits decide.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range as {
		if c := cmp.Or(cmp.Compare(len(as[i]), len(bs[i])), strings.Compare(as[i], bs[i])); c != 0 {
			return c
		}
	}
	return 0
}

// initiate speaks the initiator's part on a negotiated stream. nil: admit.
func (p policy) initiate(rw io.ReadWriter) error {
	if err := writeFrame(rw, p.own.marshal()); err != nil {
		return err
	}
	return p.receive(rw)
}

// respond speaks the recipient's part: its own Hello is sent only to a peer that
// has passed the check. nil: half-close the stream and admit.
func (p policy) respond(rw io.ReadWriter) error {
	if err := p.receive(rw); err != nil {
		return err
	}
	return writeFrame(rw, p.own.marshal())
}

func (p policy) receive(r io.Reader) error {
	// Nothing may follow the Hello, so reading ahead loses nothing.
	frame, err := readFrame(bufio.NewReader(r), maxHello)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoHello, err)
	}
	h, err := parseHello(frame)
	if err != nil {
		return err
	}
	return p.check(h)
}
