// vouch-interop-go is the Go peer of the interop tests: a go-libp2p host that
// speaks the vouch handshake and is driven through standard input.
//
// It prints one JSON object a line: first {"event":"listening",…}, then one
// {"reply":COMMAND,"ok":…} for each command, in order, and events (admitted,
// refused, disconnected, perf, message, rejected) as they happen. Logs go to
// standard error.
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
	opts := options{keyType: crypto.Ed25519, policy: policy{minVersions: make(map[string]string)}}
	flag.Func("listen", "`multiaddr` to listen on, repeatable (default "+defaultListen+")", func(s string) error {
		addr, err := ma.NewMultiaddr(s)
		opts.listen = append(opts.listen, addr)
		return err
	})
	flag.Func("min-version", "lowest version of a client, `NAME=N.N.N`, repeatable", func(s string) error {
		name, version, _ := strings.Cut(s, "=")
		if !clientNamePattern.MatchString(name) || !versionPattern.MatchString(version) {
			return fmt.Errorf("expected NAME=N.N.N, got %q", s)
		}
		opts.policy.minVersions[name] = version
		return nil
	})
	networkID := flag.String("network-id", "vouch-local", "network that peers must be of")
	flag.StringVar(&opts.policy.own.clientVersion, "client-version", defaultVersion, "sent in the handshake, NAME/N.N.N")
	flag.BoolVar(&opts.handshake, "handshake", true, "false: a plain libp2p host that doesn't know the handshake")
	flag.BoolVar(&opts.unsigned, "unsigned", false, "send messages unsigned, and check no signatures")
	flag.StringVar(&opts.agent, "agent", defaultVersion, "sent in identify")
	flag.StringVar(&opts.kad, "kad", "", "DHT protocol `prefix`, as in PREFIX/kad/1.0.0 (default no DHT)")
	flag.StringVar(&opts.seed, "seed", "", "derive the identity from this instead of a random one")
	flag.Func("key-type", "`type` of a random identity: ed25519 (default), secp256k1, rsa or ecdsa", func(s string) (err error) {
		opts.keyType, err = parseKeyType(s)
		return err
	})
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
	return control(in, out, n.commands(), opts.timeout)
}
