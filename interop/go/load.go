package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	maxCount       = 1 << 24 // of streams or requests in one command
	streamPayload  = 32
	requestPayload = 128
)

// streams opens as many echo streams as are asked for, so many at a time, and
// uses each for one frame. They are opened as a host's users do, which waits for
// identify and names a protocol that the peer is known to have with the first
// data.
func (n *node) streams(ctx context.Context, p peer.ID, args []string) (message, error) {
	count, width, err := n.parseLoad(ctx, p, args)
	if err != nil {
		return nil, err
	}
	payload := pattern(0)[:streamPayload]
	return spread(count, width, func() error {
		s, err := n.host.NewStream(network.WithNoDial(ctx, "streams"), p, echoID)
		if err != nil {
			return err
		}
		setDeadline(ctx, s)
		if err := askEcho(s, bufio.NewReader(s), payload); err != nil {
			s.Reset()
			return err
		}
		return s.Close()
	})
}

// requests asks as often as it is told to, over so many streams that stay open.
// Each asks its next when it has its answer. Opening them isn't measured.
func (n *node) requests(ctx context.Context, p peer.ID, args []string) (message, error) {
	count, streams, err := n.parseLoad(ctx, p, args)
	if err != nil {
		return nil, err
	}
	payload := pattern(0)[:requestPayload]
	var left atomic.Int64
	left.Store(int64(count))
	open := func() (network.Stream, error) { return n.openAdmitted(ctx, p, echoID) }
	took, err := withStreams(streams, open, func(_ int, s network.Stream) error {
		r := bufio.NewReader(s)
		for left.Add(-1) >= 0 {
			if err := askEcho(s, r, payload); err != nil {
				return err
			}
		}
		return nil
	})
	return message{"peer": p, "seconds": took.Seconds()}, err
}

// askEcho sends one frame and checks that it comes back.
func askEcho(s network.Stream, r *bufio.Reader, payload []byte) error {
	if err := writeFrame(s, payload); err != nil {
		return err
	}
	frame, err := readFrame(r, maxEcho)
	if err == nil && !bytes.Equal(frame, payload) {
		err = fmt.Errorf("expected the %d bytes sent to come back, got %d others", len(payload), len(frame))
	}
	return err
}

// spread does the work count times, width at a time, until one fails.
func spread(count, width int, work func() error) (message, error) {
	var left atomic.Int64
	left.Store(int64(count))
	start := time.Now()
	err := parallel(width, func(int) error {
		for left.Add(-1) >= 0 {
			if err := work(); err != nil {
				left.Store(0)
				return err
			}
		}
		return nil
	})
	return message{"seconds": time.Since(start).Seconds()}, err
}

// withStreams opens count streams and then runs the work on all of them at once,
// which is what it times. It closes them, or resets all when the work fails on one.
func withStreams(
	count int, open func() (network.Stream, error), work func(i int, s network.Stream) error,
) (took time.Duration, err error) {
	opened := make([]network.Stream, count)
	defer func() {
		for _, s := range opened {
			switch {
			case s == nil:
			case err != nil:
				s.Reset()
			default:
				s.Close()
			}
		}
	}()
	if err = parallel(count, func(i int) (err error) {
		opened[i], err = open()
		return err
	}); err != nil {
		return 0, err
	}
	start := time.Now()
	err = parallel(count, func(i int) error {
		err := work(i, opened[i])
		if err != nil {
			opened[i].Reset()
		}
		return err
	})
	return time.Since(start), err
}

// parallel runs work for 0 to count-1 at once. It returns the first error by number.
func parallel(count int, work func(i int) error) error {
	errs := make([]error, count)
	var running sync.WaitGroup
	for i := range count {
		running.Go(func() { errs[i] = work(i) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// openAdmitted opens a stream on a connection to p once that is admitted.
func (n *node) openAdmitted(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	c, err := n.conn(p)
	if err != nil {
		return nil, err
	}
	if err := n.waitAdmitted(ctx, c); err != nil {
		return nil, err
	}
	return openStream(ctx, c, id)
}

// parseLoad parses a count and how many at once, and waits until p is admitted.
func (n *node) parseLoad(ctx context.Context, p peer.ID, args []string) (count, atOnce int, err error) {
	if count, err = parseCount(args[0]); err != nil {
		return 0, 0, err
	}
	if atOnce, err = parseCount(args[1]); err != nil {
		return 0, 0, err
	}
	c, err := n.conn(p)
	if err != nil {
		return 0, 0, err
	}
	return count, atOnce, n.waitAdmitted(ctx, c)
}

func parseCount(text string) (int, error) {
	count, err := strconv.Atoi(text)
	if err == nil && (count < 1 || count > maxCount) {
		err = errors.New("out of bounds")
	}
	if err != nil {
		return 0, fmt.Errorf("expected a count from 1 to %d, got %q", maxCount, text)
	}
	return count, nil
}

func setDeadline(ctx context.Context, s network.Stream) {
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
}
