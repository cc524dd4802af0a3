package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// newMessagePair returns two connected nodes and what the messengers of both tell.
func newMessagePair(t *testing.T) (client, server *node, told chan message) {
	t.Helper()
	client, server, _ = newPerfPair(t)
	told = make(chan message, 64)
	client.messenger.emit = func(m message) { told <- m }
	server.messenger.emit = client.messenger.emit
	return client, server, told
}

func wantTold(t *testing.T, told <-chan message, event, field string, want any) {
	t.Helper()
	select {
	case got := <-told:
		if got["event"] != event || got[field] != want {
			t.Errorf("got %v, want %s with %s %v", got, event, field, want)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("got nothing, want %s with %s %v", event, field, want)
	}
}

// tell runs one command against the server.
func tell(t *testing.T, client, server *node, words ...string) (message, error) {
	t.Helper()
	args := append([]string{server.host.ID().String()}, words[1:]...)
	return client.commands()[words[0]].run(t.Context(), args)
}

func TestMessages(t *testing.T) {
	client, server, told := newMessagePair(t)
	payload := base64.StdEncoding.EncodeToString([]byte("ahoy"))
	if _, err := tell(t, client, server, "send", "9", payload); err != nil {
		t.Fatal(err)
	}
	wantTold(t, told, "message", "payload", payload)

	for _, payload := range []string{payload, emptyPayload} {
		answer, err := tell(t, client, server, "request", "1", payload)
		if err != nil || answer["type"] != uint32(typeEcho) || answer["payload"] != strings.Trim(payload, "-") {
			t.Errorf("%s: got %v, %v", payload, answer, err)
		}
	}
	if _, err := tell(t, client, server, "request", "3", payload); err == nil || err.Error() != "remote: no such thing: ahoy" {
		t.Errorf("got %v, want the handler's error", err)
	}
	if _, err := tell(t, client, server, "request", "99", payload); err == nil || !strings.HasPrefix(err.Error(), "remote: ") {
		t.Errorf("got %v, want the handler's error", err)
	}
	if _, err := tell(t, client, server, "request", "5", payload, "20"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	for range 2 {
		if _, err := tell(t, client, server, "requests-reversed", "100"); err != nil {
			t.Error(err)
		}
	}
	for _, words := range [][]string{
		{"parts", "1", "0"}, {"parts", "300", "1"}, {"parts", "3", "1000000"}, {"parts", "2", "1", "interop-parts"},
	} {
		if _, err := tell(t, client, server, words...); err != nil {
			t.Errorf("%v: %v", words, err)
		}
	}
	for _, words := range [][]string{
		{"parts", "0", "1"}, {"parts", "x", "1"}, {"send", "x", "-"}, {"send", "1", "?"}, {"send", "4294967296", "-"},
		{"request", "1", "-", "x"}, {"requests-reversed", "100000"}, {"forge", "nothing"},
	} {
		if _, err := tell(t, client, server, words...); err == nil {
			t.Errorf("%v: no error", words)
		}
	}
	// all but the parts went over one stream, and none is open but that
	if n := len(client.messenger.conversations); n != 1 {
		t.Errorf("got %d conversations, want 1", n)
	}
}

func TestComposed(t *testing.T) {
	n, _, _ := newMessagePair(t)
	for name := range keyTypes {
		got, err := n.compose(t.Context(), []string{name, "blocks", "YWhveQ=="})
		if err != nil {
			t.Fatal(err)
		}
		data, err := base64.StdEncoding.DecodeString(got["data"].(string))
		if err != nil {
			t.Fatal(err)
		}
		rules := n.messenger.rules
		rules.self = ""
		if w, err := rules.check(data, got["author"].(peer.ID), "blocks", time.Now()); err != nil || string(w.payload) != "ahoy" {
			t.Errorf("%s: %v, %v", name, w, err)
		}
	}
	if _, err := n.compose(t.Context(), []string{"dsa", "blocks", "-"}); err == nil {
		t.Error("an unknown type of key: no error")
	}
}

func TestForgeries(t *testing.T) {
	client, server, told := newMessagePair(t)
	for _, test := range []struct{ what, outcome, reason string }{
		{"none", "open", ""},
		{"signature", "reset", reasonSignature},
		{"unsigned", "reset", reasonSignature},
		{"bit", "reset", reasonSignature},
		{"network_id", "reset", reasonNetworkID},
		{"protocol", "reset", reasonProtocol},
		{"author", "reset", reasonAuthor},
		{"recipient", "reset", reasonRecipient},
		{"old", "open", reasonTimestamp},
		{"ahead", "open", reasonTimestamp},
		{"kind", "open", reasonUnasked},
		{"malformed", "reset", reasonMalformed},
		{"malformed-message", "reset", reasonMalformed},
		{"oversize", "reset", reasonOversize},
	} {
		t.Run(test.what, func(t *testing.T) {
			if testing.Short() && test.outcome == "open" {
				t.Skip("watches a stream for two seconds")
			}
			result, err := tell(t, client, server, "forge", test.what)
			if err != nil || result["outcome"] != test.outcome {
				t.Errorf("got %v, %v; want %s", result, err, test.outcome)
			}
			if test.reason == "" {
				wantTold(t, told, "message", "type", uint32(1))
			} else {
				wantTold(t, told, "rejected", "reason", test.reason)
			}
		})
	}
}

func TestAnswersAreChecked(t *testing.T) {
	client, server, told := newMessagePair(t)
	var spoil func(*wireMessage)
	server.host.SetStreamHandler(messageProtocol("interop"), func(s network.Stream) {
		m := server.messenger
		w, err := m.receive(bufio.NewReader(s), client.host.ID(), "interop")
		if err != nil {
			return
		}
		answer, _ := m.compose(client.host.ID(), "interop", kindResponse, 1, nil)
		answer.requestID = w.requestID
		spoil(&answer)
		frame, _ := m.seal(answer)
		sendMessage(s, frame)
	})
	for _, test := range []struct {
		spoil  func(*wireMessage)
		reason string
		waits  bool // for another answer
	}{
		{func(w *wireMessage) { w.requestID++ }, reasonUnasked, true},
		{func(w *wireMessage) { w.timestampMS = 1 }, reasonTimestamp, true},
		{func(w *wireMessage) { w.networkID = nil }, reasonNetworkID, false},
		{func(w *wireMessage) { w.kind = kindRequest }, reasonKind, false},
		{func(w *wireMessage) { w.more = true }, reasonMalformed, false},
	} {
		spoil = test.spoil
		client.messenger.conversations = map[conversationKey]*conversation{}
		_, err := tell(t, client, server, "request", "1", "-", "200")
		if errors.Is(err, errConversationEnded) == test.waits || err == nil {
			t.Errorf("%s: got %v", test.reason, err)
		}
		wantTold(t, told, "rejected", "reason", test.reason)
	}
}

func TestLostStreamFailsWhatWaits(t *testing.T) {
	client, server, _ := newMessagePair(t)
	server.host.SetStreamHandler(messageProtocol("interop"), func(s network.Stream) { s.Reset() })
	if _, err := tell(t, client, server, "request", "5", "-"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the stream's end", err)
	}
	server.host.SetStreamHandler(messageProtocol("interop"), server.messenger.handler("interop"))
	if _, err := tell(t, client, server, "request", "1", "-"); err != nil {
		t.Errorf("a new stream: %v", err)
	}
}
