package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"strconv"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

// newPerfPair returns two connected nodes. Their messages are read, or they
// would wait for a reader.
func newPerfPair(t *testing.T) (client, server *node, c network.Conn) {
	t.Helper()
	client, clientEvents := newTestNode(t, false)
	server, serverEvents := newTestNode(t, false)
	for _, events := range []*json.Decoder{clientEvents, serverEvents} {
		go func() {
			for event := (message{}); events.Decode(&event) == nil; {
			}
		}()
	}
	return client, server, dial(t, client, server)
}

func TestPerfMovesWhatWasAsked(t *testing.T) {
	client, server, _ := newPerfPair(t)
	for _, counts := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {perfBlock, perfBlock}, {1 << 20, 3<<20 + 1}} {
		up, down := strconv.Itoa(counts[0]), strconv.Itoa(counts[1])
		if _, err := client.perf(t.Context(), server.host.ID(), []string{up, down}); err != nil {
			t.Errorf("up %s, down %s: %v", up, down, err)
		}
	}
}

func TestPerfServer(t *testing.T) {
	_, _, c := newPerfPair(t)

	ask := func(said []byte) ([]byte, error) {
		s, err := openStream(t.Context(), c, perfID)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset()
		if _, err := s.Write(said); err != nil {
			t.Fatal(err)
		}
		s.CloseWrite()
		return io.ReadAll(s)
	}
	count := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

	if got, err := ask(append(count(5), "upload"...)); err != nil || len(got) != 5 {
		t.Errorf("got %d bytes, %v; want 5", len(got), err)
	}
	for _, said := range [][]byte{nil, {0, 0, 0}, count(maxPerf + 1)} {
		if got, err := ask(said); err == nil || len(got) > 0 {
			t.Errorf("said %x: got %d bytes, %v; want an error", said, len(got), err)
		}
	}
}

func TestPerfClientChecksTheCount(t *testing.T) {
	client, server, _ := newPerfPair(t)
	var answer []byte
	server.host.SetStreamHandler(perfID, func(s network.Stream) {
		io.Copy(io.Discard, s)
		s.Write(answer)
		s.Close()
	})
	for _, size := range []int{0, 99, 101, 200} {
		answer = bytes.Repeat([]byte{1}, size)
		if _, err := client.perf(t.Context(), server.host.ID(), []string{"10", "100"}); err == nil {
			t.Errorf("%d bytes instead of 100: no error", size)
		}
	}
	for _, bad := range []string{"-1", "x", "99999999999999"} {
		if _, err := client.perf(t.Context(), server.host.ID(), []string{bad, "0"}); err == nil {
			t.Errorf("count %s: no error", bad)
		}
	}
}
