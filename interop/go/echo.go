package main

import (
	"bufio"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	echoID      protocol.ID = "/vouch/echo/1.0.0"
	maxEcho                 = 64 << 10
	echoTimeout             = time.Minute // for each frame
)

// echo sends each frame back until the other side is done.
func echo(s network.Stream) {
	r := bufio.NewReader(s)
	for {
		s.SetDeadline(time.Now().Add(echoTimeout))
		frame, err := readFrame(r, maxEcho)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.Close()
			return
		}
		if err == nil {
			err = writeFrame(s, frame)
		}
		if err != nil {
			s.Reset()
			return
		}
	}
}
