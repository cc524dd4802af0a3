package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-varint"
)

const (
	maxInFlight         = 1 << 16          // requests on one stream
	messageWriteTimeout = 10 * time.Second // for each message
)

var (
	errConversationEnded = errors.New("the stream ended before the answer")
	errTooManyRequests   = errors.New("too many requests in flight")
)

// messenger sends signed messages and asks for answers. What it asks or sends on
// its own streams is here, what it answers on its peers' in messages_serve.go.
type messenger struct {
	key   crypto.PrivKey
	rules messageRules
	own   hello
	emit  func(message)
	open  openFunc

	mu            sync.Mutex
	conversations map[conversationKey]*conversation
}

type openFunc func(context.Context, peer.ID, protocol.ID) (network.Stream, error)

type conversationKey struct {
	peer     peer.ID
	protocol string
}

// messageProtocol is the stream protocol of a sub-protocol.
func messageProtocol(name string) protocol.ID {
	return protocol.ID("/vouch/msg/" + name + "/1.0.0")
}

func newMessenger(opts options, key crypto.PrivKey, self peer.ID, emit func(message), open openFunc) *messenger {
	return &messenger{
		key:           key,
		rules:         messageRules{opts.policy.own.networkID, self, !opts.unsigned},
		own:           opts.policy.own,
		emit:          emit,
		open:          open,
		conversations: make(map[conversationKey]*conversation),
	}
}

// compose fills in what every message to a peer says.
func (m *messenger) compose(to peer.ID, protocol string, kind messageKind, typ uint32, payload []byte) (wireMessage, error) {
	author, err := crypto.MarshalPublicKey(m.key.GetPublic())
	return wireMessage{
		author:        author,
		networkID:     m.own.networkID,
		clientVersion: m.own.clientVersion,
		protocol:      protocol,
		typ:           typ,
		kind:          kind,
		timestampMS:   uint64(time.Now().UnixMilli()),
		payload:       payload,
		recipient:     []byte(to),
	}, err
}

// seal makes a message's frame.
func (m *messenger) seal(w wireMessage) ([]byte, error) {
	signed := signedMessage{message: w.marshal()}
	if m.rules.signatures {
		var err error
		if signed, err = sign(signed.message, m.key); err != nil {
			return nil, err
		}
	}
	frame := signed.marshal()
	if len(frame) > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes, at most %d allowed", len(frame), maxMessage)
	}
	return frame, nil
}

// receive returns the next message that passes the rules; those that are only
// dropped are told and skipped. It returns io.EOF at the peer's proper end.
func (m *messenger) receive(r *bufio.Reader, from peer.ID, protocol string) (wireMessage, error) {
	for {
		frame, err := readFrame(r, maxMessage)
		switch {
		case errors.Is(err, errFrameTooLarge):
			return wireMessage{}, reject(reasonOversize, "%v", err)
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, varint.ErrOverflow), errors.Is(err, varint.ErrNotMinimal):
			return wireMessage{}, reject(reasonMalformed, "not a whole frame: %v", err)
		case err != nil:
			return wireMessage{}, err
		}
		w, err := m.rules.check(frame, from, protocol, time.Now())
		var broken *rejection
		if errors.As(err, &broken) && broken.dropped() {
			m.tell(from, protocol, err)
			continue
		}
		return w, err
	}
}

// tell emits the event "rejected", if it is a rejection that ended something.
func (m *messenger) tell(from peer.ID, protocol string, err error) {
	if r := (*rejection)(nil); errors.As(err, &r) {
		m.emit(message{
			"event": "rejected", "peer": from, "protocol": protocol,
			"reason": r.reason, "detail": r.detail, "dropped": r.dropped(),
		})
	}
}

// conversation is the one stream to a peer for a sub-protocol: messages go out,
// answers come back in any order.
type conversation struct {
	m        *messenger
	s        network.Stream
	peer     peer.ID
	protocol string
	done     chan struct{} // closed when the stream has ended; err says why

	sending sync.Mutex // one message at a time

	mu      sync.Mutex
	err     error
	last    uint64 // request_id
	waiting map[uint64]chan wireMessage
}

// conversation returns the stream to a peer, which it opens at first use and
// when the last one has ended.
func (m *messenger) conversation(ctx context.Context, p peer.ID, protocol string) (*conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := conversationKey{p, protocol}
	if c := m.conversations[key]; c != nil && c.alive() {
		return c, nil
	}
	s, err := m.open(ctx, p, messageProtocol(protocol))
	if err != nil {
		return nil, err
	}
	s.SetDeadline(time.Time{})
	c := &conversation{
		m: m, s: s, peer: p, protocol: protocol,
		done: make(chan struct{}), waiting: make(map[uint64]chan wireMessage),
	}
	m.conversations[key] = c
	go c.read()
	return c, nil
}

func (c *conversation) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// read hands out answers until the stream ends, which fails all that wait.
func (c *conversation) read() {
	r := bufio.NewReader(c.s)
	for {
		answer, err := c.m.receive(r, c.peer, c.protocol)
		if err == nil {
			err = c.take(answer)
		}
		if err == nil {
			continue
		}
		c.m.tell(c.peer, c.protocol, err)
		c.s.Reset()
		c.mu.Lock()
		c.err = fmt.Errorf("%w: %w", errConversationEnded, err)
		c.mu.Unlock()
		close(c.done)
		return
	}
}

func (c *conversation) take(answer wireMessage) error {
	if answer.kind != kindResponse {
		return reject(reasonKind, "expected answers on our own stream, got kind %d", answer.kind)
	}
	if answer.more {
		return reject(reasonMalformed, "expected a whole answer on the shared stream, got a part")
	}
	c.mu.Lock()
	waiter := c.waiting[answer.requestID]
	delete(c.waiting, answer.requestID)
	c.mu.Unlock()
	if waiter == nil {
		c.m.tell(c.peer, c.protocol, reject(reasonUnasked, "nobody waits for request %d", answer.requestID))
		return nil
	}
	waiter <- answer // has room for it
	return nil
}

// write sends one message.
func (c *conversation) write(w wireMessage) error {
	frame, err := c.m.seal(w)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	return sendMessage(c.s, frame)
}

// sendMessage resets the stream when it fails: half a frame may be on its way.
func sendMessage(s network.Stream, frame []byte) error {
	s.SetWriteDeadline(time.Now().Add(messageWriteTimeout))
	err := writeFrame(s, frame)
	if err != nil {
		s.Reset()
	}
	return err
}

// send sends what nobody answers.
func (c *conversation) send(typ uint32, payload []byte) error {
	w, err := c.m.compose(c.peer, c.protocol, kindOneWay, typ, payload)
	if err != nil {
		return err
	}
	return c.write(w)
}

// request asks and waits for the answer until ctx ends. Its error starts with
// "remote: " if the peer's handler failed.
func (c *conversation) request(ctx context.Context, typ uint32, payload []byte) (wireMessage, error) {
	w, err := c.m.compose(c.peer, c.protocol, kindRequest, typ, payload)
	if err != nil {
		return wireMessage{}, err
	}
	answered := make(chan wireMessage, 1)
	c.mu.Lock()
	if len(c.waiting) >= maxInFlight {
		c.mu.Unlock()
		return wireMessage{}, errTooManyRequests
	}
	c.last++
	w.requestID = c.last
	c.waiting[w.requestID] = answered
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, w.requestID)
		c.mu.Unlock()
	}()

	if err := c.write(w); err != nil {
		return wireMessage{}, err
	}
	select {
	case answer := <-answered:
		return answer, remoteError(answer)
	case <-c.done:
	case <-ctx.Done():
		return wireMessage{}, fmt.Errorf("no answer: %w", ctx.Err())
	}
	select {
	case answer := <-answered: // it came just before the end
		return answer, remoteError(answer)
	default:
		return wireMessage{}, c.err
	}
}

// remoteError is what an error answer says, or nil.
func remoteError(answer wireMessage) error {
	if answer.typ != errorType {
		return nil
	}
	return fmt.Errorf("remote: %s", answer.payload)
}

// requestParts asks on a stream of its own and gives each part to take.
func (m *messenger) requestParts(
	ctx context.Context, p peer.ID, protocol string, typ uint32, payload []byte, take func(i int, part wireMessage) error,
) error {
	s, err := m.open(ctx, p, messageProtocol(protocol)) // its deadline is ctx's
	if err != nil {
		return err
	}
	err = m.askParts(ctx, s, protocol, typ, payload, take)
	if err != nil {
		m.tell(p, protocol, err)
		s.Reset()
		return err
	}
	return s.Close()
}

func (m *messenger) askParts(
	ctx context.Context, s network.Stream, protocol string, typ uint32, payload []byte, take func(int, wireMessage) error,
) error {
	p := s.Conn().RemotePeer()
	w, err := m.compose(p, protocol, kindRequest, typ, payload)
	if err != nil {
		return err
	}
	w.requestID = 1
	frame, err := m.seal(w)
	if err != nil {
		return err
	}
	if err = sendMessage(s, frame); err != nil {
		return err
	}
	setDeadline(ctx, s)
	r := bufio.NewReader(s)
	for i, more := 0, true; more; i++ {
		part, err := m.receive(r, p, protocol)
		if err != nil {
			return fmt.Errorf("before part %d: %w", i, err)
		}
		if part.kind != kindResponse {
			return reject(reasonKind, "expected part %d of the answer, got kind %d", i, part.kind)
		}
		if part.requestID != w.requestID {
			return reject(reasonMalformed, "expected part %d of request %d, got one of %d", i, w.requestID, part.requestID)
		}
		if err = remoteError(part); err == nil {
			err = take(i, part)
		}
		if err != nil {
			return err
		}
		more = part.more
	}
	return nil
}
