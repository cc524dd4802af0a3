package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multihash"
)

const (
	pkPrefix         = "/pk/"
	defaultProviders = 20
	maxProviders     = 10_000
)

var errNoDHT = errors.New("no DHT: it needs --kad")

func (n *node) dhtCommands() map[string]command {
	return map[string]command{
		"find-peer":      {"PEER", 1, withPeer(n.findPeer)},
		"table":          {"", 0, n.withDHT(table)},
		"bootstrap":      {"", 0, n.withDHT(bootstrap)},
		"put":            {"KEY BASE64", 2, n.withDHT(putValue)},
		"get":            {"KEY", 1, n.withDHT(getValue)},
		"provide":        {"MULTIHASH", 1, n.withDHT(provide)},
		"find-providers": {"MULTIHASH [LIMIT]", 1, n.withDHT(findProviders)},
		"closest":        {"HEX", 1, n.withDHT(closestPeers)},
	}
}

func (n *node) withDHT(run func(context.Context, *kad.IpfsDHT, []string) (message, error)) func(context.Context, []string) (message, error) {
	return func(ctx context.Context, args []string) (message, error) {
		if n.dht == nil {
			return nil, errNoDHT
		}
		return run(ctx, n.dht, args)
	}
}

func (n *node) findPeer(ctx context.Context, p peer.ID, _ []string) (message, error) {
	if n.dht == nil {
		return nil, errNoDHT
	}
	l, err := findPeer(ctx, n.dht, p)
	return message{
		"peer": p, "found": l.found, "addrs": addrStrings(l.addrs), "connected": l.connected,
		"queried": peerStrings(l.queried), "named_by": peerStrings(l.namedBy),
	}, err
}

func table(_ context.Context, dht *kad.IpfsDHT, _ []string) (message, error) {
	return message{"peers": peerStrings(dht.RoutingTable().ListPeers())}, nil
}

func bootstrap(ctx context.Context, dht *kad.IpfsDHT, _ []string) (message, error) {
	select {
	case err := <-dht.RefreshRoutingTable():
		return message{"peers": peerStrings(dht.RoutingTable().ListPeers())}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// putValue tells who was sent the value: the library doesn't tell who took it.
func putValue(ctx context.Context, dht *kad.IpfsDHT, args []string) (message, error) {
	key, err := parseRecordKey(args[0])
	if err != nil {
		return nil, err
	}
	value, err := base64.StdEncoding.DecodeString(args[1])
	if err != nil {
		return nil, err
	}
	sent := make([]peer.ID, 0)
	err = withQueryEvents(ctx, func(ctx context.Context) error {
		return dht.PutValue(ctx, key, value)
	}, func(e *routing.QueryEvent) {
		if e.Type == routing.Value {
			sent = append(sent, e.ID)
		}
	})
	return message{"sent_to": peerStrings(sent)}, err
}

func getValue(ctx context.Context, dht *kad.IpfsDHT, args []string) (message, error) {
	key, err := parseRecordKey(args[0])
	if err != nil {
		return nil, err
	}
	value, err := dht.GetValue(ctx, key)
	if err != nil {
		return nil, err
	}
	return message{"value": base64.StdEncoding.EncodeToString(value)}, nil
}

func provide(ctx context.Context, dht *kad.IpfsDHT, args []string) (message, error) {
	key, err := parseProviderKey(args[0])
	if err != nil {
		return nil, err
	}
	return message{}, dht.Provide(ctx, key, true)
}

func findProviders(ctx context.Context, dht *kad.IpfsDHT, args []string) (message, error) {
	key, err := parseProviderKey(args[0])
	if err != nil {
		return nil, err
	}
	limit := defaultProviders
	if len(args) > 1 {
		if limit, err = strconv.Atoi(args[1]); err != nil || limit < 1 || limit > maxProviders {
			return nil, fmt.Errorf("expected a limit from 1 to %d, got %q", maxProviders, args[1])
		}
	}
	providers := make([]message, 0)
	for p := range dht.FindProvidersAsync(ctx, key, limit) {
		providers = append(providers, message{"peer": p.ID, "addrs": addrStrings(p.Addrs)})
	}
	return message{"providers": providers}, ctx.Err()
}

func closestPeers(ctx context.Context, dht *kad.IpfsDHT, args []string) (message, error) {
	key, err := hex.DecodeString(args[0])
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("expected bytes in hex, got %q", args[0])
	}
	peers, err := dht.GetClosestPeers(ctx, string(key))
	return message{"peers": peerStrings(peers)}, err
}

// parseRecordKey takes /pk/PEER as the key of that peer's public key, which has
// the peer ID's bytes, and anything else as it is.
func parseRecordKey(text string) (string, error) {
	name, ok := strings.CutPrefix(text, pkPrefix)
	if !ok {
		return text, nil
	}
	p, err := peer.Decode(name)
	return pkPrefix + string(p), err
}

// parseProviderKey takes a multihash in hex, which is all of a CID that the DHT
// looks at.
func parseProviderKey(text string) (cid.Cid, error) {
	hash, err := multihash.FromHexString(text)
	if err != nil {
		return cid.Undef, fmt.Errorf("expected a multihash in hex, got %q: %w", text, err)
	}
	return cid.NewCidV1(cid.Raw, hash), nil
}
