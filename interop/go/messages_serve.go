package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// The sub-protocols that are served, both with the same handlers. The second is
// for peers that can't answer with and without parts in one sub-protocol.
var messageProtocols = []string{"interop", "interop-parts"}

// Types of requests to them.
const (
	typeEcho     = 1 // the same payload
	typeReversed = 2 // "N INDEX": "INDEX", once N are held, the last first
	typeError    = 3 // an error answer
	typeParts    = 4 // "COUNT SIZE": so many parts, byte i&0xff of each repeated
	typeSilence  = 5 // no answer
)

const maxHeldRequests = 1 << 12

// server answers what comes on one stream of a peer. What it is asked it does
// one by one: while its writes wait it reads no more.
type server struct {
	m        *messenger
	s        network.Stream
	protocol string
	held     []wireMessage // of typeReversed
}

func (m *messenger) handler(protocol string) network.StreamHandler {
	return func(s network.Stream) {
		srv := &server{m: m, s: s, protocol: protocol}
		if err := srv.serve(); err != nil {
			m.tell(s.Conn().RemotePeer(), protocol, err)
			s.Reset()
			return
		}
		s.Close()
	}
}

// serve returns nil at the peer's proper end. The stream has no deadline for
// reading: it lives as long as its connection.
func (srv *server) serve() error {
	srv.s.SetDeadline(time.Time{})
	from := srv.s.Conn().RemotePeer()
	r := bufio.NewReader(srv.s)
	for {
		w, err := srv.m.receive(r, from, srv.protocol)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch w.kind {
		case kindOneWay:
			srv.m.emit(message{
				"event": "message", "peer": from, "protocol": srv.protocol,
				"type": w.typ, "payload": base64.StdEncoding.EncodeToString(w.payload),
			})
		case kindRequest:
			err = srv.answer(w)
		case kindResponse: // nothing is asked on a peer's stream
			srv.m.tell(from, srv.protocol, reject(reasonUnasked, "an answer, to %d, on the peer's own stream", w.requestID))
		}
		if err != nil {
			return err
		}
	}
}

func (srv *server) answer(request wireMessage) error {
	switch request.typ {
	case typeEcho:
		return srv.reply(request, request.typ, request.payload, false)
	case typeReversed:
		return srv.hold(request)
	case typeError:
		return srv.fail(request, "no such thing: "+string(request.payload))
	case typeParts:
		return srv.parts(request)
	case typeSilence:
		return nil
	}
	return srv.fail(request, fmt.Sprintf("no such type: %d", request.typ))
}

// hold keeps a request until it and those before it are as many as it says.
func (srv *server) hold(request wireMessage) error {
	count, _, err := parsePair(request.payload, maxHeldRequests)
	if err != nil {
		return srv.fail(request, err.Error())
	}
	srv.held = append(srv.held, request)
	if len(srv.held) < count {
		return nil
	}
	held := srv.held
	srv.held = nil
	for i := len(held) - 1; i >= 0; i-- {
		_, index, _ := bytes.Cut(held[i].payload, []byte(" "))
		if err := srv.reply(held[i], typeReversed, index, false); err != nil {
			return err
		}
	}
	return nil
}

func (srv *server) parts(request wireMessage) error {
	count, size, err := parsePair(request.payload, maxMessage/2)
	if err != nil || count < 1 {
		return srv.fail(request, fmt.Sprintf("expected COUNT SIZE, got %q", request.payload))
	}
	for i := range count {
		part := bytes.Repeat([]byte{byte(i)}, size)
		if err := srv.reply(request, typeParts, part, i < count-1); err != nil {
			return err
		}
	}
	return nil
}

func (srv *server) fail(request wireMessage, text string) error {
	return srv.reply(request, errorType, []byte(text), false)
}

func (srv *server) reply(request wireMessage, typ uint32, payload []byte, more bool) error {
	w, err := srv.m.compose(srv.s.Conn().RemotePeer(), srv.protocol, kindResponse, typ, payload)
	if err != nil {
		return err
	}
	w.requestID, w.more = request.requestID, more
	frame, err := srv.m.seal(w)
	if err != nil {
		return err
	}
	return sendMessage(srv.s, frame)
}

// parsePair parses two counts of at most bound.
func parsePair(text []byte, bound int) (first, second int, err error) {
	n, err := fmt.Sscanf(string(text), "%d %d", &first, &second)
	if err != nil || n != 2 || min(first, second) < 0 || max(first, second) > bound {
		return 0, 0, fmt.Errorf("expected two counts of at most %d, got %q", bound, text)
	}
	return first, second, nil
}
