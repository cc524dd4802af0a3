package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

var validHello = hello{clientVersion: "go-interop/1.2.3", networkID: []byte("vouch-local")}

func bytesField(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func join(parts ...[]byte) []byte {
	return bytes.Join(parts, nil)
}

func TestHelloBytes(t *testing.T) {
	got := hello{clientVersion: "a/0.1.2", networkID: []byte{0xff}}.marshal()
	if want := []byte("\x0a\x07a/0.1.2\x12\x01\xff"); !bytes.Equal(got, want) {
		t.Fatalf("got %x, want %x", got, want)
	}
}

func TestParseHello(t *testing.T) {
	version, id := bytesField(1, "a/1.0.0"), bytesField(2, "n")
	varintField := func(number protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 7)
	}
	tests := map[string]struct {
		in   []byte
		want string // client version; empty: not a Hello
	}{
		"both fields":              {join(version, id), "a/1.0.0"},
		"either order":             {join(id, version), "a/1.0.0"},
		"last duplicate counts":    {join(version, id, bytesField(1, "b/2.0.0")), "b/2.0.0"},
		"unknown fields":           {join(varintField(9), version, bytesField(3, "x"), id), "a/1.0.0"},
		"longest name":             {join(bytesField(1, strings.Repeat("a", 32)+"/1.0.0"), id), strings.Repeat("a", 32) + "/1.0.0"},
		"longest network ID":       {join(version, bytesField(2, strings.Repeat("n", 64))), "a/1.0.0"},
		"empty":                    {nil, ""},
		"no version":               {id, ""},
		"no network ID":            {version, ""},
		"empty version":            {join(bytesField(1, ""), id), ""},
		"empty network ID":         {join(version, bytesField(2, "")), ""},
		"network ID too long":      {join(version, bytesField(2, strings.Repeat("n", 65))), ""},
		"name too long":            {join(bytesField(1, strings.Repeat("a", 33)+"/1.0.0"), id), ""},
		"no name":                  {join(bytesField(1, "/1.0.0"), id), ""},
		"name with a space":        {join(bytesField(1, "a b/1.0.0"), id), ""},
		"two numbers":              {join(bytesField(1, "a/1.0"), id), ""},
		"four numbers":             {join(bytesField(1, "a/1.0.0.0"), id), ""},
		"leading zero":             {join(bytesField(1, "a/1.00.0"), id), ""},
		"suffix":                   {join(bytesField(1, "a/1.0.0-rc1"), id), ""},
		"trailing newline":         {join(bytesField(1, "a/1.0.0\n"), id), ""},
		"not ASCII digits":         {join(bytesField(1, "a/1.0.٣"), id), ""},
		"not UTF-8":                {join(bytesField(1, "\xff"), version, id), ""},
		"wrong wire type, version": {join(varintField(1), version, id), ""},
		"wrong wire type, ID":      {join(version, id, varintField(2)), ""},
		"truncated":                {join(version, id[:len(id)-1]), ""},
		"truncated unknown field":  {join(version, id, []byte{0x1a, 5}), ""},
		"field number zero":        {join(version, id, []byte{0x02, 0}), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseHello(test.in)
			if test.want == "" {
				if !errors.Is(err, errNoHello) {
					t.Fatalf("got %+v, %v; want errNoHello", got, err)
				}
				return
			}
			if err != nil || got.clientVersion != test.want {
				t.Fatalf("got %+v, %v; want %q", got, err, test.want)
			}
		})
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(validHello.marshal())
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHello(in)
		if err != nil {
			return
		}
		if again, err := parseHello(h.marshal()); err != nil || again.clientVersion != h.clientVersion {
			t.Fatalf("%+v doesn't survive: %+v, %v", h, again, err)
		}
	})
}

func TestCheck(t *testing.T) {
	p := policy{own: validHello, minVersions: map[string]string{"py": "1.10.0"}}
	tests := map[string]struct {
		version, network string
		want             error
	}{
		"same":                {"go-interop/1.2.3", "vouch-local", nil},
		"unlisted name":       {"rust/0.0.0", "vouch-local", nil},
		"exactly the lowest":  {"py/1.10.0", "vouch-local", nil},
		"higher":              {"py/2.0.0", "vouch-local", nil},
		"numbers, not text":   {"py/1.9.9", "vouch-local", errVersionTooLow},
		"beyond 64 bits":      {"py/1.18446744073709551616.0", "vouch-local", nil},
		"names keep case":     {"PY/0.0.0", "vouch-local", nil},
		"other network":       {"py/1.10.0", "other", errNetworkIDMismatch},
		"prefix of network":   {"py/1.10.0", "vouch", errNetworkIDMismatch},
		"network comes first": {"py/0.0.0", "other", errNetworkIDMismatch},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := p.check(hello{clientVersion: test.version, networkID: []byte(test.network)})
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
		})
	}
}

// shake runs both roles against each other; a side that refuses hangs up.
func shake(t *testing.T, initiator, recipient policy) (initiated, responded error) {
	t.Helper()
	a, b := net.Pipe()
	a.SetDeadline(time.Now().Add(time.Second))
	b.SetDeadline(time.Now().Add(time.Second))
	done := make(chan error)
	go func() {
		err := recipient.respond(b)
		b.Close()
		done <- err
	}()
	initiated = initiator.initiate(a)
	a.Close()
	return initiated, <-done
}

func TestHandshake(t *testing.T) {
	other := policy{own: hello{clientVersion: "py/1.0.0", networkID: []byte("other")}}
	same := policy{own: validHello}
	strict := policy{own: validHello, minVersions: map[string]string{"go-interop": "2.0.0"}}

	if initiated, responded := shake(t, same, same); initiated != nil || responded != nil {
		t.Fatalf("got %v, %v; want both to admit", initiated, responded)
	}
	// The recipient refuses without a word: the initiator only sees the end.
	if initiated, responded := shake(t, same, other); !errors.Is(initiated, io.EOF) || !errors.Is(responded, errNetworkIDMismatch) {
		t.Fatalf("got %v, %v; want the recipient to refuse", initiated, responded)
	}
	if initiated, responded := shake(t, strict, same); !errors.Is(initiated, errVersionTooLow) || responded != nil {
		t.Fatalf("got %v, %v; want the initiator to refuse", initiated, responded)
	}
}

func TestFrames(t *testing.T) {
	read := func(in string) ([]byte, error) {
		return readFrame(bufio.NewReader(strings.NewReader(in)), 3)
	}
	if frame, err := read("\x03abcd"); err != nil || string(frame) != "abc" {
		t.Fatalf("got %q, %v", frame, err)
	}
	if _, err := read(""); err != io.EOF {
		t.Fatalf("got %v, want the end", err)
	}
	for name, in := range map[string]string{
		"too long":            "\x04abcd",
		"truncated":           "\x03ab",
		"nothing after":       "\x03",
		"truncated length":    "\x80",
		"length not shortest": "\x83\x00abc",
	} {
		if frame, err := read(in); err == nil || err == io.EOF {
			t.Errorf("%s: got %q, %v; want an error", name, frame, err)
		}
	}
}
