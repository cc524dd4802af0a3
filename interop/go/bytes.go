package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	bytesID      protocol.ID = "/vouch/bytes/1.0.0"
	resetID      protocol.ID = "/vouch/reset/1.0.0"
	bytesBlock               = 64 << 10
	bytesTimeout             = time.Minute // for each read and write
	resetBytes               = 1000
)

// returnBytes sends back what comes, as it comes, and ends when the other side
// has. It reads no more while it can't write.
func returnBytes(s network.Stream) {
	block := make([]byte, bytesBlock)
	for {
		s.SetDeadline(time.Now().Add(bytesTimeout))
		n, err := s.Read(block)
		if n > 0 {
			s.SetDeadline(time.Now().Add(bytesTimeout))
			if _, err := s.Write(block[:n]); err != nil {
				s.Reset()
				return
			}
		}
		if errors.Is(err, io.EOF) {
			s.Close()
			return
		}
		if err != nil {
			s.Reset()
			return
		}
	}
}

// resetAfterOne takes one byte and resets the stream.
func resetAfterOne(s network.Stream) {
	s.SetDeadline(time.Now().Add(bytesTimeout))
	io.ReadFull(s, make([]byte, 1))
	s.Reset()
}

// patternSize is after how many bytes the pattern comes round.
const patternSize = 1 << 16

// patterns are made when they are first needed, and shared: streams of numbers
// 256 apart have the same.
var patterns [256]func() []byte

func init() {
	for k := range patterns {
		patterns[k] = sync.OnceValue(func() []byte {
			block := make([]byte, 2*patternSize)
			for i := range block {
				block[i] = byte(i*31 + (i>>8)*17 + k)
			}
			return block
		})
	}
}

// pattern returns what stream k sends: byte i is (i*31 + (i>>8)*17 + k) & 0xff.
// It is two rounds long, so that it holds any block of it in one piece, and only
// to be read.
func pattern(k int) []byte { return patterns[k&0xff]() }

// echoBytes sends the pattern on so many streams at once and checks, meanwhile,
// that it comes back whole and then ends.
func (n *node) echoBytes(ctx context.Context, p peer.ID, args []string) (message, error) {
	count, err := parsePerfCount(args[0])
	if err != nil {
		return nil, err
	}
	streams, err := parseCount(args[1])
	if err != nil {
		return nil, err
	}
	open := func() (network.Stream, error) { return n.openAdmitted(ctx, p, bytesID) }
	took, err := withStreams(streams, open, func(k int, s network.Stream) error {
		if err := echoPattern(s, k, count); err != nil {
			return fmt.Errorf("stream %d: %w", k, err)
		}
		return nil
	})
	return message{"peer": p, "seconds": took.Seconds()}, err
}

func echoPattern(s network.Stream, k int, count uint64) error {
	want := pattern(k)
	sent := make(chan error, 1)
	go func() { sent <- sendPattern(s, want, count) }()
	err := checkPattern(s, want, count)
	if err != nil {
		s.Reset() // or the sender may wait for its peer
	}
	// of the two, the sender's is the consequence
	return errors.Join(err, <-sent)
}

func sendPattern(s network.Stream, block []byte, count uint64) error {
	for count > 0 {
		n, err := s.Write(block[:min(count, patternSize)])
		if err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		count -= uint64(n)
	}
	return s.CloseWrite()
}

// checkPattern reads to the end and compares.
func checkPattern(r io.Reader, want []byte, count uint64) error {
	got := make([]byte, bytesBlock)
	var offset uint64
	for {
		n, err := r.Read(got)
		at := offset % patternSize
		if !bytes.Equal(got[:n], want[at:at+uint64(n)]) {
			return fmt.Errorf("expected the pattern, got other bytes between %d and %d", offset, offset+uint64(n))
		}
		offset += uint64(n)
		switch {
		case offset > count:
			return fmt.Errorf("expected %d bytes, got more", count)
		case errors.Is(err, io.EOF):
			if offset < count {
				return fmt.Errorf("expected %d bytes, got %d and the end", count, offset)
			}
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", offset, err)
		}
	}
}

// reset resets a stream that works, and then uses another one.
func (n *node) reset(ctx context.Context, p peer.ID, _ []string) (message, error) {
	s, err := n.openAdmitted(ctx, p, bytesID)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	sent := pattern(0)[:resetBytes]
	if _, err := s.Write(sent); err != nil {
		return nil, err
	}
	got := make([]byte, resetBytes)
	if _, err := io.ReadFull(s, got); err != nil {
		return nil, err
	}
	if !bytes.Equal(got, sent) {
		return nil, errors.New("expected the bytes sent to come back, got others")
	}
	if err := s.Reset(); err != nil {
		return nil, err
	}
	return n.stillEchoes(ctx, p)
}

// wasReset has the peer reset a stream, and then uses another one.
func (n *node) wasReset(ctx context.Context, p peer.ID, _ []string) (message, error) {
	s, err := n.openAdmitted(ctx, p, resetID)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write([]byte{1}); err != nil {
		return nil, err
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		return nil, fmt.Errorf("expected the peer to reset the stream, got %v", err)
	}
	return n.stillEchoes(ctx, p)
}

func (n *node) stillEchoes(ctx context.Context, p peer.ID) (message, error) {
	s, err := n.openAdmitted(ctx, p, bytesID)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return message{"peer": p}, echoPattern(s, 0, resetBytes)
}
