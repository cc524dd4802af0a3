package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxFlood = 10_000_000
	maxRate  = 1_000_000
	maxDelay = 10 * 60 * 1000 // milliseconds
)

var errNoPubsub = errors.New("no pubsub: it needs --pubsub")

func (n *node) gossipCommands() map[string]command {
	return map[string]command{
		"subscribe":     {"TOPIC", 1, n.withGossip((*gossip).subscribeCommand)},
		"validate":      {"TOPIC accept|reject|ignore|delay [MS]", 2, n.withGossip((*gossip).validateCommand)},
		"publish":       {"TOPIC SIZE [SEED]", 2, n.withGossip((*gossip).publishCommand)},
		"publish-bytes": {"TOPIC BASE64", 2, n.withGossip((*gossip).publishBytesCommand)},
		"flood":         {"TOPIC N SIZE RATE", 4, n.withGossip((*gossip).floodCommand)},
		"received":      {"TOPIC", 1, n.withGossip((*gossip).receivedCommand)},
		"mesh":          {"TOPIC", 1, n.withGossip((*gossip).meshCommand)},
		"score":         {"PEER", 1, n.withGossip((*gossip).scoreCommand)},
		"rpcs":          {"", 0, n.withGossip((*gossip).rpcsCommand)},
	}
}

func (n *node) withGossip(run func(*gossip, context.Context, []string) (message, error)) func(context.Context, []string) (message, error) {
	return func(ctx context.Context, args []string) (message, error) {
		if n.gossip == nil {
			return nil, errNoPubsub
		}
		return run(n.gossip, ctx, args)
	}
}

func (g *gossip) subscribeCommand(_ context.Context, args []string) (message, error) {
	return message{}, g.subscribe(args[0])
}

func (g *gossip) validateCommand(_ context.Context, args []string) (message, error) {
	v := verdict{}
	switch mode := args[1]; {
	case mode == "accept" && len(args) == 2:
	case mode == "reject" && len(args) == 2:
		v.result = pubsub.ValidationReject
	case mode == "ignore" && len(args) == 2:
		v.result = pubsub.ValidationIgnore
	case mode == "delay" && len(args) == 3:
		ms, err := number(args[2], 0, maxDelay)
		if err != nil {
			return nil, err
		}
		v.delay = time.Duration(ms) * time.Millisecond
	default:
		return nil, fmt.Errorf("expected accept, reject, ignore or delay MS, got %q", args[1:])
	}
	return message{}, g.validate(args[0], v)
}

func (g *gossip) publishCommand(ctx context.Context, args []string) (message, error) {
	size, err := number(args[1], 0, maxRPC)
	if err != nil {
		return nil, err
	}
	seed := rand.Uint64()
	if len(args) > 2 {
		if seed, err = strconv.ParseUint(args[2], 10, 64); err != nil {
			return nil, err
		}
	}
	data := pseudoRandom(seed, size)
	id, err := g.publish(ctx, args[0], data)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	return message{"id": hex.EncodeToString([]byte(id)), "sha256": hex.EncodeToString(sum[:])}, nil
}

func (g *gossip) publishBytesCommand(ctx context.Context, args []string) (message, error) {
	data, err := base64.StdEncoding.DecodeString(args[1])
	if err != nil {
		return nil, err
	}
	id, err := g.publish(ctx, args[0], data)
	if err != nil {
		return nil, err
	}
	return message{"id": hex.EncodeToString([]byte(id))}, nil
}

// floodCommand keeps to a timetable: after a delay it catches up.
func (g *gossip) floodCommand(ctx context.Context, args []string) (message, error) {
	count, err1 := number(args[1], 1, maxFlood)
	size, err2 := number(args[2], 0, maxRPC)
	rate, err3 := number(args[3], 0, maxRate)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	seed := rand.Uint64()
	start := time.Now()
	for i := range count {
		if rate > 0 {
			due := time.Duration(float64(i) / float64(rate) * float64(time.Second))
			if err := sleep(ctx, due-time.Since(start)); err != nil {
				return nil, fmt.Errorf("published %d of %d: %w", i, count, err)
			}
		}
		if _, err := g.publish(ctx, args[0], pseudoRandom(seed+uint64(i), size)); err != nil {
			return nil, fmt.Errorf("published %d of %d: %w", i, count, err)
		}
	}
	return message{"seconds": time.Since(start).Seconds()}, nil
}

func (g *gossip) receivedCommand(_ context.Context, args []string) (message, error) {
	return g.received(args[0])
}

func (g *gossip) meshCommand(_ context.Context, args []string) (message, error) {
	return message{"peers": g.trace.mesh(args[0])}, nil
}

func (g *gossip) scoreCommand(ctx context.Context, args []string) (message, error) {
	p, err := peer.Decode(args[0])
	if err != nil {
		return nil, err
	}
	score, err := g.scores.next(ctx, p)
	if err != nil {
		return nil, err
	}
	return message{"score": score}, nil
}

func (g *gossip) rpcsCommand(context.Context, []string) (message, error) {
	return g.trace.counts(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pseudoRandom returns the bytes that belong to a seed: the numbers of SplitMix64,
// little-endian. The Rust peer makes the same.
func pseudoRandom(seed uint64, size int) []byte {
	data := make([]byte, 0, size+8)
	for len(data) < size {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		data = binary.LittleEndian.AppendUint64(data, z^z>>31)
	}
	return data[:size]
}

func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("expected a number from %d to %d, got %q", low, high, s)
	}
	return n, nil
}
