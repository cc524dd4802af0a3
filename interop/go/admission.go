package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"github.com/multiformats/go-varint"
)

const (
	maxHeldStreams     = 16
	negotiationTimeout = 10 * time.Second
	// forgetAfter is how long the outcome of a closed connection can be asked for.
	forgetAfter = time.Minute
)

var errConnEnded = errors.New("connection ended before a valid Hello")

// admission runs the handshake on every connection, whoever asked for it, and
// holds inbound streams until it is decided: their multistream header is
// answered, nothing after it.
//
// Where this falls short of the protocol: the Go host opens its identify stream
// as soon as it is connected and gives no way to hold it back; held streams count
// from when they name their protocol, and their bytes are bounded by Yamux windows
// only; and a peer that refused is dialled again whenever a command or the DHT
// asks for it, without a backoff.
type admission struct {
	policy   policy
	handlers protocol.Switch // the host's
	emit     func(message)

	mu    sync.Mutex
	conns map[network.Conn]*connAdmission
}

// connAdmission is the admission of one connection. done is closed when it is
// decided; the fields above it are valid from then on.
type connAdmission struct {
	err  error         // nil: admitted
	took time.Duration // initiator: handshake stream opened to answer checked
	at   time.Time     // when it was decided
	done chan struct{}

	once    sync.Once
	started atomic.Bool // a handshake stream has been seen
	in      atomic.Bool // admitted, from just before the event tells so
	held    atomic.Int32
}

func newAdmission(p policy, handlers protocol.Switch, emit func(message)) *admission {
	return &admission{policy: p, handlers: handlers, emit: emit, conns: make(map[network.Conn]*connAdmission)}
}

// connected is called for each new connection before its streams are accepted.
func (a *admission) connected(c network.Conn) {
	ca := &connAdmission{done: make(chan struct{})}
	a.mu.Lock()
	a.conns[c] = ca
	a.mu.Unlock()
	// Not stopped on admission: by then it has nothing left to decide.
	time.AfterFunc(admissionDeadline, func() {
		a.decide(c, ca, fmt.Errorf("not admitted within %s", admissionDeadline))
	})
	if isInitiator(c) {
		go a.initiate(c, ca)
	}
}

func (a *admission) disconnected(c network.Conn) {
	if ca := a.of(c); ca != nil {
		a.decide(c, ca, errConnEnded)
	}
	// Not at once: a dial may return after its connection has been refused and
	// must still learn why.
	time.AfterFunc(forgetAfter, func() {
		a.mu.Lock()
		delete(a.conns, c)
		a.mu.Unlock()
	})
}

func (a *admission) of(c network.Conn) *connAdmission {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conns[c]
}

func (a *admission) admitted(c network.Conn) bool {
	ca := a.of(c)
	return ca != nil && ca.admitted()
}

// wait returns nil once c is admitted, else why it isn't.
func (a *admission) wait(ctx context.Context, c network.Conn) error {
	ca := a.of(c)
	if ca == nil {
		return errConnEnded
	}
	select {
	case <-ca.done:
		return ca.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (ca *connAdmission) admitted() bool {
	return ca.in.Load()
}

// hold keeps a stream waiting for admission and tells whether it may go on.
func (ca *connAdmission) hold() bool {
	defer ca.held.Add(-1)
	if ca.held.Add(1) > maxHeldStreams && !ca.admitted() {
		return false
	}
	<-ca.done
	return ca.err == nil
}

// decide settles a connection's admission, once.
func (a *admission) decide(c network.Conn, ca *connAdmission, err error) {
	ca.once.Do(func() {
		ca.at = time.Now()
		ca.err = err
		event := message{"event": "admitted", "peer": c.RemotePeer(), "direction": direction(c)}
		if err != nil {
			if !c.IsClosed() {
				c.Close() // resets the held streams too
			}
			event["event"], event["reason"] = "refused", err.Error()
		}
		ca.in.Store(err == nil)
		a.emit(event)
		close(ca.done)
	})
}

// initiate is the initiator's side. The stream is opened on the connection:
// Host.NewStream would wait for the identify that the recipient holds.
func (a *admission) initiate(c network.Conn, ca *connAdmission) {
	ctx, cancel := context.WithTimeout(context.Background(), admissionDeadline)
	defer cancel()
	start := time.Now()
	s, err := openStream(ctx, c, handshakeID)
	if err == nil {
		if err = a.policy.initiate(s); err != nil {
			s.Reset()
		}
	}
	ca.took = time.Since(start)
	a.decide(c, ca, err)
	if err == nil {
		s.Close()
	}
}

// respond is the recipient's side: the handler of the handshake protocol.
func (a *admission) respond(s network.Stream) {
	c := s.Conn()
	ca := a.of(c)
	if ca == nil {
		s.Reset()
		return
	}
	if isInitiator(c) || !ca.started.CompareAndSwap(false, true) {
		err := errors.New("handshake stream by the wrong side, or a second one")
		slog.Warn("connection ended", "peer", c.RemotePeer(), "reason", err)
		s.Reset()
		a.decide(c, ca, err)
		c.Close() // it may have been admitted before
		return
	}
	s.SetDeadline(time.Now().Add(admissionDeadline))
	err := a.policy.respond(s)
	if err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		s.Reset()
	}
	a.decide(c, ca, err)
	if err == nil {
		s.CloseRead()
	}
}

// serve replaces the host's handler of inbound streams.
func (a *admission) serve(s network.Stream) {
	id, handle, err := a.negotiate(s)
	if err == nil {
		err = s.SetProtocol(id)
	}
	if err != nil {
		slog.Debug("inbound stream ended", "peer", s.Conn().RemotePeer(), "error", err)
		s.Reset()
		return
	}
	handle(id, s)
}

func (a *admission) negotiate(s network.Stream) (protocol.ID, protocol.HandlerFunc, error) {
	ca := a.of(s.Conn())
	if ca == nil {
		return "", nil, errConnEnded
	}
	s.SetDeadline(time.Now().Add(negotiationTimeout))
	defer s.SetDeadline(time.Time{})

	// Multistream asks whether a protocol is supported before it answers, so this
	// is the place to wait for admission.
	var handle protocol.HandlerFunc
	gate := multistream.NewMultistreamMuxer[protocol.ID]()
	gate.AddHandlerWithFunc("", func(id protocol.ID) bool {
		if id != handshakeID && !ca.hold() {
			s.Reset()
			return false
		}
		handle = a.handler(id)
		return handle != nil
	}, nil)
	id, _, err := gate.Negotiate(s)
	return id, handle, err
}

// handler returns the host's handler for a protocol, or nil. The host's muxer
// has no look-up, so it is made to negotiate the protocol with a recording.
func (a *admission) handler(id protocol.ID) protocol.HandlerFunc {
	var said bytes.Buffer
	for _, token := range []string{multistream.ProtocolID, string(id)} {
		said.Write(varint.ToUvarint(uint64(len(token) + 1)))
		said.WriteString(token + "\n")
	}
	_, handle, err := a.handlers.Negotiate(struct {
		io.Reader
		io.Writer
		io.Closer
	}{&said, io.Discard, io.NopCloser(nil)})
	if err != nil {
		return nil
	}
	return handle
}

// openStream opens a stream on the connection itself and negotiates by hand.
// ctx bounds only this; the stream's deadline is ctx's until the caller sets another.
func openStream(ctx context.Context, c network.Conn, id protocol.ID) (network.Stream, error) {
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	if err = s.SetProtocol(id); err == nil {
		err = multistream.SelectProtoOrFail(id, s)
	}
	if err != nil {
		s.Reset()
		return nil, err
	}
	return s, nil
}

// isInitiator tells whether this side initiated the security handshake. Over
// TCP that is the side that dialled.
func isInitiator(c network.Conn) bool {
	return c.Stat().Direction == network.DirOutbound
}

func direction(c network.Conn) string {
	if isInitiator(c) {
		return "outbound"
	}
	return "inbound"
}
