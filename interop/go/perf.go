package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	perfID      protocol.ID = "/perf/1.0.0"
	perfBlock               = 64 << 10
	perfTimeout             = 5 * time.Minute // for the whole stream
	maxPerf                 = 16 << 30        // each way
)

// perfHandler takes an upload to its end, then sends as many bytes as the
// client wanted (https://github.com/libp2p/specs/blob/master/perf/perf.md). It
// tells how much that was.
func perfHandler(emit func(message)) network.StreamHandler {
	return func(s network.Stream) {
		received, asked, err := servePerf(s)
		if err != nil {
			s.Reset()
			return
		}
		emit(message{"event": "perf", "peer": s.Conn().RemotePeer(), "received": received, "sent": asked})
		s.Close()
	}
}

func servePerf(s network.Stream) (received, asked uint64, err error) {
	s.SetDeadline(time.Now().Add(perfTimeout))
	if err = binary.Read(s, binary.BigEndian, &asked); err != nil {
		return 0, 0, err
	}
	if asked > maxPerf {
		return 0, 0, fmt.Errorf("asked for %d bytes, at most %d allowed", asked, int64(maxPerf))
	}
	block := make([]byte, perfBlock)
	if received, err = discard(s, block, maxPerf); err != nil {
		return 0, 0, err
	}
	return received, asked, fill(s, block, asked)
}

// perf uploads and then downloads, on as many streams at once as are asked for.
// Opening them isn't measured; an upload lasts until the first byte, or the end,
// of what comes back.
func (n *node) perf(ctx context.Context, p peer.ID, args []string) (message, error) {
	up, err := parsePerfCount(args[0])
	if err != nil {
		return nil, err
	}
	down, err := parsePerfCount(args[1])
	if err != nil {
		return nil, err
	}
	streams := 1
	if len(args) > 2 {
		if streams, err = parseCount(args[2]); err != nil {
			return nil, err
		}
	}
	return n.perfStreams(ctx, p, slices.Repeat([]perfCounts{{up, down}}, streams))
}

// both uploads on one stream while it downloads as much on another.
func (n *node) both(ctx context.Context, p peer.ID, args []string) (message, error) {
	count, err := parsePerfCount(args[0])
	if err != nil {
		return nil, err
	}
	return n.perfStreams(ctx, p, []perfCounts{{up: count}, {down: count}})
}

type perfCounts struct{ up, down uint64 }

// perfStreams measures one stream for each of counts, all at once.
func (n *node) perfStreams(ctx context.Context, p peer.ID, counts []perfCounts) (message, error) {
	open := func() (network.Stream, error) { return n.openAdmitted(ctx, p, perfID) }
	var mu sync.Mutex
	var uploaded, downloaded time.Duration // the longest
	took, err := withStreams(len(counts), open, func(i int, s network.Stream) error {
		up, down, err := measurePerf(s, counts[i].up, counts[i].down)
		mu.Lock()
		defer mu.Unlock()
		uploaded, downloaded = max(uploaded, up), max(downloaded, down)
		return err
	})
	if err != nil {
		return nil, err
	}
	return message{
		"peer": p, "upload_s": uploaded.Seconds(), "download_s": downloaded.Seconds(), "seconds": took.Seconds(),
	}, nil
}

func measurePerf(s network.Stream, up, down uint64) (uploaded, downloaded time.Duration, err error) {
	block := make([]byte, perfBlock)
	start := time.Now()
	if err := binary.Write(s, binary.BigEndian, down); err != nil {
		return 0, 0, err
	}
	if err := fill(s, block, up); err != nil {
		return 0, 0, err
	}
	if err := s.CloseWrite(); err != nil {
		return 0, 0, err
	}
	first, err := s.Read(block)
	turned := time.Now()
	received := uint64(first)
	if err == nil && received <= down {
		var rest uint64
		rest, err = discard(s, block, down-received)
		received += rest
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	ended := time.Now()
	if received != down {
		return 0, 0, fmt.Errorf("expected the %d bytes asked for, got %d", down, received)
	}
	return turned.Sub(start), ended.Sub(turned), nil
}

// discard reads to the end and counts. It fails soon after the bound.
func discard(r io.Reader, block []byte, bound uint64) (uint64, error) {
	var received uint64
	for {
		n, err := r.Read(block)
		received += uint64(n)
		switch {
		case received > bound:
			return received, fmt.Errorf("expected at most %d bytes, got more", bound)
		case errors.Is(err, io.EOF):
			return received, nil
		case err != nil:
			return received, err
		}
	}
}

// fill writes count bytes, whatever is in block.
func fill(w io.Writer, block []byte, count uint64) error {
	for count > 0 {
		n, err := w.Write(block[:min(count, uint64(len(block)))])
		if err != nil {
			return err
		}
		count -= uint64(n)
	}
	return nil
}

func parsePerfCount(text string) (uint64, error) {
	count, err := strconv.ParseUint(text, 10, 64)
	if err != nil || count > maxPerf {
		return 0, fmt.Errorf("expected a count of bytes up to %d, got %q", int64(maxPerf), text)
	}
	return count, nil
}
