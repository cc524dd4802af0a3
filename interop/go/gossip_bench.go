package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// The benchmark of gossip: hosts of their own beside the node, plain libp2p, which
// sign (StrictSign) and have the router's defaults, except for the queues:
//
//	gossip-many NODES RATE COUNT SIZE   NODES hosts, connected all to all, publish
//	                                    COUNT messages in turn, RATE a second
//	gossip-open                         one host, for another process: {"addr"}
//	gossip-join ADDR                    one host, connected with that one: {}
//	gossip-expect RUN COUNT             so many messages will come: {}
//	gossip-publish RUN RATE COUNT SIZE  it publishes: {"seconds"}
//	gossip-take                         what came of what was expected
//	gossip-close                        ends the hosts: {}
//
// What they answer, and the layout of a message, is told in
// interop/bench/ends/gossip.py.
const (
	benchTopic  = "bench"
	benchHeader = 16
	benchTick   = 2 * time.Millisecond
	// benchQuiet and benchFirst: a run is over when nothing has come for so long.
	benchQuiet = 1500 * time.Millisecond
	benchFirst = 10 * time.Second
	benchMesh  = 5
	// benchQueue: with the library's 32, messages are lost long before the
	// processor is at its end. It is for RPCs to one peer, messages that wait for
	// their validation, and for the subscriber alike.
	benchQueue = 4096
)

type benchHost struct {
	host.Host
	topic *pubsub.Topic
	trace *gossipTracer
}

// gossipBench has the hosts of the commands, which run one at a time.
type gossipBench struct {
	hosts []*benchHost
	stop  context.CancelFunc
	runs  int

	mu    sync.Mutex
	trial *benchTrial
}

func (b *gossipBench) commands() map[string]command {
	return map[string]command{
		"gossip-many":    {"NODES RATE COUNT SIZE", 4, b.many},
		"gossip-open":    {"", 0, b.openOne},
		"gossip-join":    {"ADDR", 1, b.join},
		"gossip-publish": {"RUN RATE COUNT SIZE", 4, b.publish},
		"gossip-expect":  {"RUN COUNT", 2, b.expect},
		"gossip-take":    {"", 0, b.take},
		"gossip-close":   {"", 0, b.closeCommand},
	}
}

// benchRun is what is published.
type benchRun struct {
	number, count, size int
	rate                float64
}

func parseBenchRun(args []string) (r benchRun, err error) {
	var err1, err2, err3 error
	r.rate, err1 = strconv.ParseFloat(args[0], 64)
	r.count, err2 = number(args[1], 1, maxFlood)
	r.size, err3 = number(args[2], benchHeader, maxRPC)
	if err1 == nil && !(r.rate > 0 && r.rate <= maxRate) {
		err1 = fmt.Errorf("expected a rate up to %d, got %q", maxRate, args[0])
	}
	return r, errors.Join(err1, err2, err3)
}

func (b *gossipBench) many(ctx context.Context, args []string) (message, error) {
	nodes, err1 := number(args[0], 2, 100)
	run, err2 := parseBenchRun(args[1:])
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if len(b.hosts) != nodes {
		if err := b.open(ctx, nodes); err != nil {
			return nil, err
		}
	}
	b.runs++
	run.number = b.runs
	trial := b.begin(run.number, run.count, nodes, nodes)
	if _, err := b.paced(ctx, run); err != nil {
		return nil, err
	}
	return trial.result(ctx)
}

func (b *gossipBench) openOne(ctx context.Context, _ []string) (message, error) {
	if err := b.open(ctx, 1); err != nil {
		return nil, err
	}
	h := b.hosts[0]
	return message{"addr": fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())}, nil
}

func (b *gossipBench) join(ctx context.Context, args []string) (message, error) {
	info, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return nil, err
	}
	if err := b.open(ctx, 1); err != nil {
		return nil, err
	}
	if err := b.hosts[0].Connect(ctx, *info); err != nil {
		return nil, err
	}
	return message{}, b.ready(ctx, 1)
}

func (b *gossipBench) publish(ctx context.Context, args []string) (message, error) {
	number, err1 := number(args[0], 0, maxFlood)
	run, err2 := parseBenchRun(args[1:])
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if len(b.hosts) == 0 {
		return nil, errNotConnected
	}
	run.number = number
	seconds, err := b.paced(ctx, run)
	return message{"seconds": seconds}, err
}

func (b *gossipBench) expect(_ context.Context, args []string) (message, error) {
	run, err1 := number(args[0], 0, maxFlood)
	count, err2 := number(args[1], 1, maxFlood)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	b.begin(run, count, 1, 1)
	return message{}, nil
}

func (b *gossipBench) take(ctx context.Context, _ []string) (message, error) {
	if b.trial == nil {
		return nil, errors.New("expected gossip-expect before")
	}
	return b.trial.result(ctx)
}

func (b *gossipBench) closeCommand(context.Context, []string) (message, error) {
	b.close()
	return message{}, nil
}

func (b *gossipBench) close() {
	if b.stop != nil {
		b.stop()
	}
	for _, h := range b.hosts {
		h.Close()
	}
	b.hosts, b.stop = nil, nil
}

// open makes the hosts, connected all to all, and waits for their meshes.
func (b *gossipBench) open(ctx context.Context, nodes int) error {
	b.close()
	var life context.Context
	life, b.stop = context.WithCancel(context.Background())
	for i := range nodes {
		h, err := b.newHost(life, i)
		if err != nil {
			return err
		}
		for _, other := range b.hosts {
			if err := h.Connect(ctx, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}); err != nil {
				return err
			}
		}
		b.hosts = append(b.hosts, h)
	}
	return b.ready(ctx, min(benchMesh, nodes-1))
}

func (b *gossipBench) newHost(life context.Context, receiver int) (*benchHost, error) {
	key, err := newIdentity("", crypto.Ed25519)
	if err != nil {
		return nil, err
	}
	plain, sw, err := newHost(key, defaultVersion, transportOptions{})
	if err != nil {
		return nil, err
	}
	h := &benchHost{Host: plain, trace: newGossipTracer()}
	if err := sw.Listen(ma.StringCast(defaultListen)); err != nil {
		return nil, err
	}
	plain.Start()
	router, err := pubsub.NewGossipSub(life, plain,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithFloodPublish(false),
		pubsub.WithPeerOutboundQueueSize(benchQueue),
		pubsub.WithValidateQueueSize(benchQueue),
		pubsub.WithRawTracer(h.trace))
	if err != nil {
		return nil, err
	}
	if h.topic, err = router.Join(benchTopic); err != nil {
		return nil, err
	}
	subscription, err := h.topic.Subscribe(pubsub.WithBufferSize(benchQueue))
	if err != nil {
		return nil, err
	}
	own := plain.ID()
	go func() {
		for {
			m, err := subscription.Next(life)
			if err != nil {
				return // the benchmark has ended
			}
			if m.ReceivedFrom == own {
				continue
			}
			b.mu.Lock()
			trial := b.trial
			b.mu.Unlock()
			if trial != nil {
				trial.note(receiver, m.Data)
			}
		}
	}()
	return h, nil
}

func (b *gossipBench) ready(ctx context.Context, links int) error {
	for {
		if !slices.ContainsFunc(b.hosts, func(h *benchHost) bool { return len(h.trace.mesh(benchTopic)) < links }) {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *gossipBench) begin(run, count, receivers, publishers int) *benchTrial {
	trial := newBenchTrial(run, count, receivers, publishers)
	b.mu.Lock()
	b.trial = trial
	b.mu.Unlock()
	return trial
}

// paced publishes by timetable, in turn from all hosts; what is late is sent at
// once. It returns the seconds that it took.
func (b *gossipBench) paced(ctx context.Context, run benchRun) (float64, error) {
	start := time.Now()
	for sent := 0; sent < run.count; {
		due := min(run.count, 1+int(time.Since(start).Seconds()*run.rate))
		for ; sent < due; sent++ {
			data := make([]byte, run.size)
			binary.BigEndian.PutUint32(data, uint32(run.number))
			binary.BigEndian.PutUint32(data[4:], uint32(sent))
			binary.BigEndian.PutUint64(data[8:], uint64(time.Now().UnixNano()))
			if err := b.hosts[sent%len(b.hosts)].topic.Publish(ctx, data); err != nil {
				return 0, fmt.Errorf("published %d of %d: %w", sent, run.count, err)
			}
		}
		if sent < run.count {
			next := time.Duration(float64(sent) / run.rate * float64(time.Second))
			if err := sleep(ctx, max(next-time.Since(start), benchTick)); err != nil {
				return 0, fmt.Errorf("published %d of %d: %w", sent, run.count, err)
			}
		}
	}
	return time.Since(start).Seconds(), nil
}

// benchTrial is what is delivered of one run.
type benchTrial struct {
	run, publishers, expected int
	cpu                       float64

	mu      sync.Mutex
	seen    [][]bool
	delays  []int64 // nanoseconds
	arrived []int64 // nanoseconds since 1970
	started int64
	touched time.Time // after which quiet means the end
	twice   int
	over    chan struct{}
}

func newBenchTrial(run, count, receivers, publishers int) *benchTrial {
	t := &benchTrial{run: run, publishers: publishers, expected: count * receivers, over: make(chan struct{})}
	if publishers > 1 {
		t.expected -= count
	}
	for range receivers {
		t.seen = append(t.seen, make([]bool, count))
	}
	t.cpu, t.touched = processSeconds(), time.Now().Add(benchFirst)
	return t
}

func (t *benchTrial) note(receiver int, data []byte) {
	if len(data) < benchHeader || binary.BigEndian.Uint32(data) != uint32(t.run) {
		return
	}
	now := time.Now()
	sent, published := int(binary.BigEndian.Uint32(data[4:])), int64(binary.BigEndian.Uint64(data[8:]))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.publishers > 1 && sent%t.publishers == receiver {
		return
	}
	if t.seen[receiver][sent] {
		t.twice++
		return
	}
	t.seen[receiver][sent] = true
	if t.started == 0 || published < t.started {
		t.started = published
	}
	t.delays = append(t.delays, now.UnixNano()-published)
	t.arrived = append(t.arrived, now.UnixNano())
	t.touched = now.Add(benchQuiet)
	if len(t.delays) == t.expected {
		close(t.over)
	}
}

// result waits until everything has arrived, or nothing has for a while.
func (t *benchTrial) result(ctx context.Context) (message, error) {
	for {
		t.mu.Lock()
		left := time.Until(t.touched)
		t.mu.Unlock()
		if left <= 0 {
			break
		}
		select {
		case <-t.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(left):
			continue
		}
		break
	}
	cpu := processSeconds() - t.cpu
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.twice > 0 {
		return nil, fmt.Errorf("expected each message once, %d were delivered again", t.twice)
	}
	seconds := 0.0
	if enough := (t.expected*99 + 99) / 100; len(t.arrived) >= enough {
		seconds = float64(t.arrived[enough-1]-t.started) / 1e9
	}
	slices.Sort(t.delays)
	return message{
		"delivered": len(t.delays), "expected": t.expected, "seconds": seconds, "cpu_s": cpu,
		"p50_ms": percentile(t.delays, 50), "p99_ms": percentile(t.delays, 99),
	}, nil
}

func percentile(delays []int64, percent int) float64 {
	if len(delays) == 0 {
		return 0
	}
	return float64(delays[(len(delays)*percent+99)/100-1]) / 1e6
}

// processSeconds is the CPU time of this process so far.
func processSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
