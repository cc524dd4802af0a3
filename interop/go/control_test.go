package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// freeAddr is an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func dialControl(t *testing.T, addr string) (net.Conn, *json.Decoder) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			t.Cleanup(func() { conn.Close() })
			return conn, json.NewDecoder(bufio.NewReader(conn))
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func expect(t *testing.T, from *json.Decoder, key, value string) message {
	t.Helper()
	var got message
	if err := from.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got[key] != value {
		t.Fatalf("expected %s %s, got %v", key, value, got)
	}
	return got
}

func TestControlServesOneClientAfterTheOther(t *testing.T) {
	addr := freeAddr(t)
	var before strings.Builder
	out := &output{w: &before}
	commands := map[string]command{"tell": {"TEXT", 1, func(_ context.Context, args []string) (message, error) {
		out.send(message{"event": "told", "text": args[0]})
		return message{}, nil
	}}}
	ended := make(chan error, 1)
	go func() { ended <- serveControl(addr, out, message{"event": "listening"}, commands, time.Second) }()

	// one that looks whether anybody is there, and goes
	probe, _ := dialControl(t, addr)
	probe.Close()
	for _, text := range []string{"first", "second"} {
		conn, from := dialControl(t, addr)
		expect(t, from, "event", "listening")
		conn.Write([]byte("tell " + text + "\n"))
		if told := expect(t, from, "event", "told"); told["text"] != text {
			t.Fatalf("expected %q, got %v", text, told)
		}
		expect(t, from, "reply", "tell")
		conn.Close()
	}
	conn, from := dialControl(t, addr)
	expect(t, from, "event", "listening")
	conn.Write([]byte("quit\n"))
	expect(t, from, "reply", "quit")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	out.send(message{"event": "late"})
	if !strings.Contains(before.String(), "late") {
		t.Fatalf("expected events to go where they went before, got %q", before.String())
	}
}

func TestControlGivesUpWhoDoesNotRead(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	start := time.Now()
	_, err := patient{ours}.Write([]byte("anybody?"))
	if !os.IsTimeout(err) {
		t.Fatalf("expected a timeout, got %v", err)
	}
	if took := time.Since(start); took > 2*clientTimeout {
		t.Fatalf("took %v", took)
	}
	if _, err := ours.Write(nil); err == nil {
		t.Fatal("expected the connection to be closed")
	}
}
