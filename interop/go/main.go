// vouch-interop-go is the Go peer of the interop tests: a go-libp2p host that
// speaks the vouch handshake and is driven through standard input.
//
// It prints one JSON object a line: first {"event":"listening",…}, then one
// {"reply":COMMAND,"ok":…} for each command, in order, and events (admitted,
// refused, disconnected, perf, message, rejected) as they happen. Logs go to
// standard error. With --control HOST:PORT the same goes over TCP, with one client
// after the other: nobody else than who drives it should be able to reach that.
//
// It listens on and dials TCP, WebSocket (/tcp/PORT/ws, with --wss-certificate
// /tcp/PORT/tls/ws) and QUIC, as addresses say.
//
// push-identify serves one more protocol, which the library tells all peers; who
// is told, then or when it asked, prints {"event":"identified","peer","agent",
// "protocols"}.
//
// Commands for signed messages, all of the sub-protocol "interop"; a payload is
// base64, or - for none:
//
//	send PEER TYPE PAYLOAD
//	request PEER TYPE PAYLOAD [TIMEOUT_MS]  {"type","payload"}; error "remote: TEXT" for an error answer
//	requests-reversed PEER N                N at once, answered the last first
//	parts PEER COUNT SIZE [PROTOCOL]        an answer in COUNT parts of SIZE bytes
//	forge PEER WHAT                         one message with one fault: {"outcome"} is reset, open,
//	                                        closed or disconnected after 2 s
//	compose KEY_TYPE TOPIC PAYLOAD          a message as gossip carries it, by a new author: {"author","data"}
//
// It serves "interop" and "interop-parts" alike: the types of their requests are
// in messages_serve.go. A one-way message is the event message ("peer",
// "protocol", "type", "payload"), one that breaks the rules the event rejected
// ("peer", "protocol", "reason", "detail"; "dropped": whether its stream went on).
//
// With --pubsub signed (StrictSign, a message's ID is its author and its sequence
// number) or unsigned (StrictNoSign, the first 20 bytes of SHA-256 of topic, a zero
// byte and data) it speaks gossipsub; go-libp2p-pubsub's defaults, except for the
// score (gossip.go). --gossip-param sets D, Dlo, Dhi, Dscore, Dout, Dlazy,
// HistoryLength, HistoryGossip, IDontWantMessageThreshold (bytes), OutboundQueue
// (RPCs for one peer) and, in milliseconds, HeartbeatInterval,
// HeartbeatInitialDelay, PruneBackoff, IWantFollowupTime. Its commands:
//
//	subscribe TOPIC           {}; then {"event":"gossip","topic","from","id","size",
//	                          "sha256","at_ms"} for each message that is delivered:
//	                          one of another peer, once it has been accepted. from
//	                          is the peer it came from, id is in hex
//	validate TOPIC MODE       {}; accept (the default), reject, ignore, or delay MS:
//	                          the verdict on what comes from other peers
//	publish TOPIC SIZE [SEED] {"id","sha256"}: bytes that belong to SEED
//	publish-bytes TOPIC BASE64  {"id"}
//	flood TOPIC N SIZE RATE   {"seconds"}: N different messages, RATE a second, or 0:
//	                          as quickly as it can, which outruns the queue of a
//	                          peer. --timeout bounds it as any other command
//	received TOPIC            {"count","unique","first_ms","last_ms"} of what was
//	                          delivered
//	mesh TOPIC                {"peers":[…]}
//	score PEER                {"score"}
//	rpcs                      {"in":{"graft","prune","ihave","iwant","idontwant",
//	                          "messages"},"out":{…},"dropped"}: entries of RPCs, since
//	                          the start; out when queued; dropped are messages that
//	                          were for one peer and found its queue full
//
// With --kad PREFIX it is a server of the DHT on PREFIX/kad/1.0.0, which takes values
// under /v/NAME, the greater the better, and public keys under /pk/PEER. Its commands:
//
//	put KEY BASE64            {"sent_to":[…]}: who was sent it. KEY is /v/NAME or /pk/PEER
//	get KEY                   {"value"}, in base64
//	provide MULTIHASH         {}; a multihash is in hex
//	find-providers MULTIHASH [LIMIT]  {"providers":[{"peer","addrs"}]}, 20 without LIMIT
//	find-peer PEER            {"found","addrs","connected","queried","named_by"}
//	closest HEX               {"peers":[…]}, of any key
//	table                     {"peers":[…]}: who is in the routing table
//	bootstrap                 the same, after the table has been refreshed
//
// With --mdns, or --mdns=SERVICE in place of _p2p._udp, it connects to all that it
// finds by mDNS, and tells {"event":"mdns","peer","addrs","connected","error"} once it
// is known whether that worked. It doesn't find Rust peers, which find it: go-libp2p
// wants addresses in DNS records beside those that libp2p's are in. With --dns HOST:PORT it asks that server alone for
// names, as connect does for a /dnsaddr/ address:
//
//	resolve-dnsaddr MULTIADDR  {"addrs":[…]}
//
// All times are milliseconds since 1970.
//
// The commands gossip-… are the benchmark's (gossip_bench.go).
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	defaultListen  = "/ip4/127.0.0.1/tcp/0"
	defaultVersion = "go-interop/1.0.0"
)

func main() {
	opts, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := run(opts, os.Stdin, &output{w: os.Stdout}); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

func parseFlags() (options, error) {
	opts := options{
		keyType: crypto.Ed25519,
		policy:  policy{minVersions: make(map[string]string)},
		gossip:  defaultGossipOptions(),
	}
	flag.Func("listen", "`multiaddr` to listen on, repeatable (default "+defaultListen+")", func(s string) error {
		addr, err := ma.NewMultiaddr(s)
		opts.listen = append(opts.listen, addr)
		return err
	})
	flag.Func("security", "`noise|tls`: what TCP and WebSocket are secured by (default noise)", opts.transports.setSecurity)
	flag.Func("wss-certificate", "PEM `file` with a certificate and its key, to listen on .../tls/ws", opts.transports.setCertificate)
	flag.Func("wss-roots", "PEM `file` with whom to trust at .../tls/ws (default the system's)", opts.transports.setRoots)
	flag.Func("min-version", "lowest version of a client, `NAME=N.N.N`, repeatable", func(s string) error {
		name, version, _ := strings.Cut(s, "=")
		if !clientNamePattern.MatchString(name) || !versionPattern.MatchString(version) {
			return fmt.Errorf("expected NAME=N.N.N, got %q", s)
		}
		opts.policy.minVersions[name] = version
		return nil
	})
	flag.Func("pubsub", "`signed|unsigned`: speak gossipsub (default no pubsub)", opts.gossip.setMode)
	flag.Func("gossip-param", "a parameter of the router, `NAME=VALUE`, repeatable", opts.gossip.setParam)
	flag.Func("flood-publish", "`on|off`: publish to all peers of a topic (default off)", opts.gossip.setFlood)
	networkID := flag.String("network-id", "vouch-local", "network that peers must be of")
	flag.StringVar(&opts.policy.own.clientVersion, "client-version", defaultVersion, "sent in the handshake, NAME/N.N.N")
	flag.BoolVar(&opts.handshake, "handshake", true, "false: a plain libp2p host that doesn't know the handshake")
	flag.BoolVar(&opts.unsigned, "unsigned", false, "send messages unsigned, and check no signatures")
	flag.StringVar(&opts.agent, "agent", defaultVersion, "sent in identify")
	flag.StringVar(&opts.kad, "kad", "", "DHT protocol `prefix`, as in PREFIX/kad/1.0.0 (default no DHT)")
	flag.StringVar(&opts.dns, "dns", "", "the DNS server for /dnsaddr/ and host names, `HOST:PORT` (default the system's)")
	flag.BoolFunc("mdns", "connect to what mDNS finds, as =`SERVICE` or else "+mdns.ServiceName, func(s string) error {
		if opts.mdns = s; s == "true" {
			opts.mdns = mdns.ServiceName
		}
		return nil
	})
	flag.StringVar(&opts.seed, "seed", "", "derive the identity from this instead of a random one")
	flag.Func("key-type", "`type` of a random identity: ed25519 (default), secp256k1, rsa or ecdsa", func(s string) (err error) {
		opts.keyType, err = parseKeyType(s)
		return err
	})
	flag.StringVar(&opts.control, "control", "", "take commands from who connects with `HOST:PORT`, not from standard input")
	flag.DurationVar(&opts.timeout, "timeout", 10*time.Second, "bound for each command")
	flag.Parse()

	if flag.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if len(opts.listen) == 0 {
		opts.listen = []ma.Multiaddr{ma.StringCast(defaultListen)}
	}
	opts.policy.own.networkID = []byte(*networkID)
	return opts, opts.policy.own.validate()
}

// run serves commands until there are no more.
func run(opts options, in io.Reader, out *output) error {
	n, err := newNode(opts, out)
	if err != nil {
		return err
	}
	defer n.close()
	out.send(n.listening())
	if opts.mdns != "" {
		if err := n.startMDNS(opts.mdns, opts.timeout, out.send); err != nil {
			return fmt.Errorf("mdns: %w", err)
		}
	}
	if opts.control != "" {
		return serveControl(opts.control, out, n.listening(), n.commands(), opts.timeout)
	}
	_, err = control(in, out, n.commands(), opts.timeout)
	return err
}
