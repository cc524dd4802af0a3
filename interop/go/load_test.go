package main

import (
	"bufio"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

func TestLoadCommands(t *testing.T) {
	client, server, _ := newPerfPair(t)
	commands := client.commands()
	id := server.host.ID().String()
	for _, words := range [][]string{
		{"perf", id, "65537", "1048577", "8"},
		{"both", id, "1048577"},
		{"streams", id, "50", "1"},
		{"streams", id, "100", "16"},
		{"requests", id, "100", "1"},
		{"requests", id, "500", "16"},
		{"requests", id, "3", "16"}, // fewer than streams
	} {
		result, err := commands[words[0]].run(t.Context(), words[1:])
		if err != nil || result["seconds"].(float64) <= 0 {
			t.Errorf("%v: %v, %v", words, result, err)
		}
	}
	for _, words := range [][]string{
		{"streams", id, "0", "1"}, {"streams", id, "1", "0"}, {"requests", id, "x", "1"},
		{"requests", id, "1", "-1"}, {"perf", id, "1", "1", "0"}, {"both", id, "-1"}, {"echo", id, "1", "0"},
	} {
		if _, err := commands[words[0]].run(t.Context(), words[1:]); err == nil {
			t.Errorf("%v: no error", words)
		}
	}
}

func TestEchoesAreCompared(t *testing.T) {
	client, server, _ := newPerfPair(t)
	server.host.SetStreamHandler(echoID, func(s network.Stream) {
		frame, _ := readFrame(bufio.NewReader(s), maxEcho)
		frame[len(frame)-1]++
		writeFrame(s, frame)
		s.Close()
	})
	for _, run := range []func() error{
		func() error { _, err := client.streams(t.Context(), server.host.ID(), []string{"1", "1"}); return err },
		func() error { _, err := client.requests(t.Context(), server.host.ID(), []string{"1", "1"}); return err },
	} {
		if run() == nil {
			t.Error("another frame came back: no error")
		}
	}
}

func TestEchoBytes(t *testing.T) {
	client, server, _ := newPerfPair(t)
	for _, args := range [][]string{{"0", "1"}, {"1", "3"}, {"65536", "2"}, {"1000001", "4"}, {"64", "300"}} {
		if _, err := client.echoBytes(t.Context(), server.host.ID(), args); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestEchoBytesNoticesWhatDiffers(t *testing.T) {
	client, server, _ := newPerfPair(t)
	for name, answer := range map[string]func(network.Stream, []byte){
		"other":   func(s network.Stream, sent []byte) { sent[70_000]++; s.Write(sent); s.Close() },
		"fewer":   func(s network.Stream, sent []byte) { s.Write(sent[1:]); s.Close() },
		"shorter": func(s network.Stream, sent []byte) { s.Write(sent[:len(sent)-1]); s.Close() },
		"more": func(s network.Stream, sent []byte) {
			s.Write(sent)
			s.Write(pattern(0)[100_000&0xffff:][:1])
			s.Close()
		},
		"reset": func(s network.Stream, sent []byte) { s.Write(sent); s.Reset() },
	} {
		server.host.SetStreamHandler(bytesID, func(s network.Stream) {
			sent, _ := io.ReadAll(s)
			answer(s, sent)
		})
		if _, err := client.echoBytes(t.Context(), server.host.ID(), []string{"100000", "1"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestResets(t *testing.T) {
	client, server, _ := newPerfPair(t)
	if _, err := client.reset(t.Context(), server.host.ID(), nil); err != nil {
		t.Errorf("reset: %v", err)
	}
	if _, err := client.wasReset(t.Context(), server.host.ID(), nil); err != nil {
		t.Errorf("was reset: %v", err)
	}
	server.host.SetStreamHandler(resetID, func(s network.Stream) {
		io.ReadFull(s, make([]byte, 1))
		s.Close()
	})
	if _, err := client.wasReset(t.Context(), server.host.ID(), nil); err == nil {
		t.Error("ended instead of reset: no error")
	}
}

func TestPattern(t *testing.T) {
	for _, k := range []int{0, 1, 255, 999} {
		block := pattern(k)
		for _, i := range []int{0, 1, 255, 256, 65535, 65536, 131071} {
			if want := byte((i*31 + (i>>8)*17 + k) & 0xff); block[i] != want {
				t.Errorf("stream %d, byte %d: got %d, want %d", k, i, block[i], want)
			}
			if i < patternSize && block[i] != block[i+patternSize] {
				t.Errorf("stream %d, byte %d: the pattern doesn't come round", k, i)
			}
		}
	}
}
