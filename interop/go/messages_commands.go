package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// emptyPayload stands for no bytes where a command takes a payload.
const emptyPayload = "-"

func (n *node) messageCommands() map[string]command {
	return map[string]command{
		"send":              {"PEER TYPE BASE64", 3, withPeer(n.sendMessage)},
		"request":           {"PEER TYPE BASE64 [TIMEOUT_MS]", 3, withPeer(n.request)},
		"requests-reversed": {"PEER N", 2, withPeer(n.requestsReversed)},
		"parts":             {"PEER COUNT SIZE [PROTOCOL]", 3, withPeer(n.parts)},
		"forge":             {"PEER WHAT", 2, withPeer(n.forge)},
		"compose":           {"KEY_TYPE TOPIC BASE64", 3, n.compose},
	}
}

// sendMessage sends one message that nobody answers.
func (n *node) sendMessage(ctx context.Context, p peer.ID, args []string) (message, error) {
	typ, payload, err := parsePayload(args)
	if err != nil {
		return nil, err
	}
	c, err := n.messenger.conversation(ctx, p, messageProtocols[0])
	if err != nil {
		return nil, err
	}
	return message{"peer": p}, c.send(typ, payload)
}

// request asks once. A timeout ends only this request.
func (n *node) request(ctx context.Context, p peer.ID, args []string) (message, error) {
	typ, payload, err := parsePayload(args)
	if err != nil {
		return nil, err
	}
	if len(args) > 2 {
		timeout, err := parseCount(args[2])
		if err != nil {
			return nil, err
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Millisecond)
		defer cancel()
	}
	c, err := n.messenger.conversation(ctx, p, messageProtocols[0])
	if err != nil {
		return nil, err
	}
	answer, err := c.request(ctx, typ, payload)
	if err != nil {
		return nil, err
	}
	return message{
		"peer": p, "type": answer.typ, "payload": base64.StdEncoding.EncodeToString(answer.payload),
	}, nil
}

// requestsReversed asks many at once over one stream; the peer holds them all
// and answers the last first. Each must get its own answer.
func (n *node) requestsReversed(ctx context.Context, p peer.ID, args []string) (message, error) {
	count, err := parseCount(args[0])
	if err != nil {
		return nil, err
	}
	if count > maxHeldRequests {
		return nil, fmt.Errorf("expected at most %d requests, got %d", maxHeldRequests, count)
	}
	c, err := n.messenger.conversation(ctx, p, messageProtocols[0])
	if err != nil {
		return nil, err
	}
	start := time.Now()
	err = parallel(count, func(i int) error {
		answer, err := c.request(ctx, typeReversed, fmt.Appendf(nil, "%d %d", count, i))
		if err == nil && string(answer.payload) != strconv.Itoa(i) {
			err = fmt.Errorf("request %d: expected its own number, got %q", i, answer.payload)
		}
		return err
	})
	return message{"peer": p, "seconds": time.Since(start).Seconds()}, err
}

// parts asks for an answer in parts and checks each.
func (n *node) parts(ctx context.Context, p peer.ID, args []string) (message, error) {
	payload := []byte(args[0] + " " + args[1])
	count, size, err := parsePair(payload, maxMessage/2)
	if err != nil {
		return nil, err
	}
	name := messageProtocols[0]
	if len(args) > 2 {
		name = args[2]
	}
	start, got := time.Now(), 0
	err = n.messenger.requestParts(ctx, p, name, typeParts, payload, func(i int, part wireMessage) error {
		if got == count && !part.more && len(part.payload) == 0 {
			return nil // only says that the part before was the last
		}
		if want := bytes.Repeat([]byte{byte(i)}, size); !bytes.Equal(part.payload, want) {
			return fmt.Errorf("part %d: expected %d times byte %d, got %d bytes, others", i, size, byte(i), len(part.payload))
		}
		got++
		return nil
	})
	if err == nil && got != count {
		err = fmt.Errorf("expected %d parts, got %d", count, got)
	}
	return message{"peer": p, "seconds": time.Since(start).Seconds()}, err
}

// compose returns a message as gossip carries it, by a new author with a key of
// that type.
func (n *node) compose(_ context.Context, args []string) (message, error) {
	keyType, err := parseKeyType(args[0])
	if err != nil {
		return nil, err
	}
	_, payload, err := parsePayload([]string{"0", args[2]})
	if err != nil {
		return nil, err
	}
	key, err := newIdentity("", keyType)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	author := &messenger{key: key, own: n.messenger.own, rules: messageRules{signatures: true}}
	w, err := author.compose("", args[1], kindOneWay, 1, payload)
	if err != nil {
		return nil, err
	}
	data, err := author.seal(w)
	return message{"author": id, "data": base64.StdEncoding.EncodeToString(data)}, err
}

func parsePayload(args []string) (uint32, []byte, error) {
	typ, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return 0, nil, fmt.Errorf("expected a type from 0 to %d, got %q", uint32(errorType), args[0])
	}
	if args[1] == emptyPayload {
		return uint32(typ), nil, nil
	}
	payload, err := base64.StdEncoding.DecodeString(args[1])
	if err != nil {
		return 0, nil, fmt.Errorf("expected a payload as base64: %w", err)
	}
	return uint32(typ), payload, nil
}
