package main

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/net/dns/dnsmessage"
)

// serveTXT answers questions for TXT on loopback, and returns where.
func serveTXT(t *testing.T, records map[string][]string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:size]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			texts, ok := records[strings.TrimSuffix(q.Name.String(), ".")]
			if m.Response, m.Additionals = true, nil; !ok {
				m.RCode = dnsmessage.RCodeNameError
			}
			for _, text := range texts {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.TXTResource{TXT: []string{text}},
				})
			}
			if packed, err := m.Pack(); err == nil {
				conn.WriteTo(packed, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

func newPlainNode(t *testing.T, dns string) *node {
	t.Helper()
	n, err := newNode(options{
		listen: []ma.Multiaddr{ma.StringCast(defaultListen)},
		policy: policy{own: validHello},
		gossip: defaultGossipOptions(),
		dns:    dns,
	}, &output{w: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

func TestResolveDNSAddr(t *testing.T) {
	listener := newPlainNode(t, "")
	reached := listener.host.Addrs()[0].String() + "/p2p/" + listener.host.ID().String()
	records := map[string][]string{
		"_dnsaddr.harbour.test":      {"dnsaddr=/dnsaddr/pier.harbour.test", "dnsaddr=" + reached, "other=1", "dnsaddr=no"},
		"_dnsaddr.pier.harbour.test": {"dnsaddr=/ip4/192.0.2.1/tcp/4001", "dnsaddr=/dns4/pier.test/tcp/4001"},
		"_dnsaddr.loop.test":         {"dnsaddr=/dnsaddr/loop.test"},
	}
	n := newPlainNode(t, serveTXT(t, records))
	want := []string{"/dns4/pier.test/tcp/4001", "/ip4/192.0.2.1/tcp/4001", reached}
	got := n.command(t, "resolve-dnsaddr /dnsaddr/harbour.test")["addrs"].([]string)
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Fatalf("expected %v, got %v", want, got)
	}
	suffix := "/p2p/" + listener.host.ID().String()
	if got := n.command(t, "resolve-dnsaddr /dnsaddr/harbour.test"+suffix)["addrs"].([]string); !slices.Equal(got, []string{reached}) {
		t.Fatalf("expected %v, got %v", reached, got)
	}
	n.command(t, "connect /dnsaddr/harbour.test"+suffix)
	n.commandFails(t, "resolve-dnsaddr /dnsaddr/nowhere.test")
	if got := n.command(t, "resolve-dnsaddr /dnsaddr/loop.test")["addrs"].([]string); len(got) > 1 {
		t.Fatalf("expected a loop to end, got %v", got)
	}
}
