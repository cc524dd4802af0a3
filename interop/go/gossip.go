package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

const (
	// maxRPC is go-libp2p-pubsub's default too; it is given so that both ends of a
	// test are known to agree.
	maxRPC = 1 << 20
	// subscriptionBuffer is how many delivered messages may wait to be printed.
	// The library drops what doesn't fit, which is logged.
	subscriptionBuffer = 4096
	scoreInspectPeriod = 100 * time.Millisecond
	unsignedIDSize     = 20
	// maxSeen bounds the IDs that are kept to tell how many were different.
	maxSeen = 1 << 20
)

// The score: P4 alone. Each invalid message adds 1 to a sender's counter, which
// decays to a hundredth within about 90 s; the score is -10 times its square. So
// one costs the place in the mesh, two cost gossip (-40), three are published to no
// more (-90), and five are not listened to any more (-250). Everything else would
// make scores depend on how fast a test is: P6 in particular, as all peers share
// an IP.
var (
	scoreThresholds = pubsub.PeerScoreThresholds{
		GossipThreshold:             -20,
		PublishThreshold:            -50,
		GraylistThreshold:           -200,
		AcceptPXThreshold:           10,
		OpportunisticGraftThreshold: 1,
	}
	topicScore = pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TimeInMeshQuantum:              time.Second, // the library divides by it, whatever its weight
		TopicWeight:                    1,
		InvalidMessageDeliveriesWeight: -10,
		InvalidMessageDeliveriesDecay:  0.95,
	}
)

// scoreParams are made anew for each router, which writes to them.
func scoreParams() *pubsub.PeerScoreParams {
	return &pubsub.PeerScoreParams{
		Topics:           make(map[string]*pubsub.TopicScoreParams),
		AppSpecificScore: func(peer.ID) float64 { return 0 },
		DecayInterval:    time.Second,
		DecayToZero:      0.01,
		RetainScore:      10 * time.Minute,
	}
}

var errNotSubscribed = errors.New("not subscribed")

// gossipOptions are the flags of pubsub.
type gossipOptions struct {
	mode     string // "": no pubsub; signed or unsigned
	flood    bool
	outbound int // RPCs that may wait for one peer
	params   pubsub.GossipSubParams
}

func defaultGossipOptions() gossipOptions {
	return gossipOptions{outbound: 32, params: pubsub.DefaultGossipSubParams()}
}

func (o *gossipOptions) setMode(s string) error {
	if s != "signed" && s != "unsigned" {
		return fmt.Errorf("expected signed or unsigned, got %q", s)
	}
	o.mode = s
	return nil
}

func (o *gossipOptions) setFlood(s string) error {
	if s != "on" && s != "off" {
		return fmt.Errorf("expected on or off, got %q", s)
	}
	o.flood = s == "on"
	return nil
}

// setParam takes NAME=VALUE; a duration is in milliseconds. Whether the values go
// together is checked when the router is made.
func (o *gossipOptions) setParam(s string) error {
	p := &o.params
	counts := map[string]*int{
		"D": &p.D, "Dlo": &p.Dlo, "Dhi": &p.Dhi, "Dscore": &p.Dscore, "Dout": &p.Dout, "Dlazy": &p.Dlazy,
		"HistoryLength": &p.HistoryLength, "HistoryGossip": &p.HistoryGossip,
		"IDontWantMessageThreshold": &p.IDontWantMessageThreshold, "OutboundQueue": &o.outbound,
	}
	durations := map[string]*time.Duration{
		"HeartbeatInterval": &p.HeartbeatInterval, "HeartbeatInitialDelay": &p.HeartbeatInitialDelay,
		"PruneBackoff": &p.PruneBackoff, "IWantFollowupTime": &p.IWantFollowupTime,
	}
	name, text, _ := strings.Cut(s, "=")
	value, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("expected NAME=NUMBER, got %q", s)
	}
	if count, ok := counts[name]; ok {
		*count = int(value)
	} else if duration, ok := durations[name]; ok {
		*duration = time.Duration(value) * time.Millisecond
	} else {
		return fmt.Errorf("unknown parameter %q", name)
	}
	if p.HeartbeatInterval == 0 {
		return errors.New("expected a HeartbeatInterval above 0")
	}
	return nil
}

// gossip is the node's part in pubsub: its topics, and what was seen on them.
type gossip struct {
	pubsub *pubsub.PubSub
	own    peer.ID
	signed bool
	trace  *gossipTracer
	scores *scoreBoard
	emit   func(message)
	stop   context.CancelFunc

	mu     sync.Mutex
	topics map[string]*gossipTopic
	lastID string // of the message that was published last
}

// gossipTopic is a topic that a command has named. Its fields below verdict are
// guarded by gossip.mu.
type gossipTopic struct {
	*pubsub.Topic
	verdict     verdict
	validated   bool // the library asks for verdicts
	subscribed  bool
	count       int
	seen        map[string]struct{}
	first, last float64
}

// verdict is what this peer says to what it receives on a topic.
type verdict struct {
	result pubsub.ValidationResult
	delay  time.Duration
}

// newGossip starts pubsub on a host that doesn't listen yet.
func newGossip(n *node, opts gossipOptions, emit func(message)) (*gossip, error) {
	ctx, stop := context.WithCancel(context.Background())
	g := &gossip{
		own: n.host.ID(), signed: opts.mode == "signed", emit: emit, stop: stop,
		trace: newGossipTracer(), scores: newScoreBoard(), topics: make(map[string]*gossipTopic),
	}
	settings := []pubsub.Option{
		pubsub.WithMessageIdFn(g.messageID),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(opts.outbound),
		pubsub.WithGossipSubParams(opts.params),
		pubsub.WithFloodPublish(opts.flood),
		pubsub.WithPeerScore(scoreParams(), &scoreThresholds),
		pubsub.WithPeerScoreInspect(g.scores.set, scoreInspectPeriod),
		pubsub.WithRawTracer(g.trace),
	}
	if g.signed {
		settings = append(settings, pubsub.WithMessageSignaturePolicy(pubsub.StrictSign))
	} else {
		settings = append(settings, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor())
	}
	var err error
	if g.pubsub, err = pubsub.NewGossipSub(ctx, admittedHost{n.host, n}, settings...); err != nil {
		stop()
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	return g, nil
}

// admittedHost is the host as pubsub sees it: it opens streams on admitted
// connections only. What peers open is held back where all their streams are.
//
// Where this falls short: the library asks once for each time that a peer has been
// identified. If the connection that is waited for is refused while another one of
// the same peer is admitted, gossip with it begins with its next connection only.
type admittedHost struct {
	host.Host
	node *node
}

func (h admittedHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	c, err := h.node.conn(p)
	if err != nil {
		return nil, err
	}
	if err := h.node.waitAdmitted(ctx, c); err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	s.SetDeadline(time.Now().Add(negotiationTimeout))
	id, err := multistream.SelectOneOf(ids, s)
	if err == nil {
		err = s.SetProtocol(id)
	}
	if err != nil {
		s.Reset()
		return nil, err
	}
	s.SetDeadline(time.Time{})
	return s, nil
}

// messageID also notes the ID of what this peer publishes: Publish doesn't tell it.
func (g *gossip) messageID(m *pb.Message) string {
	if !g.signed {
		return unsignedID(m.GetTopic(), m.GetData())
	}
	id := pubsub.DefaultMsgIdFn(m)
	if peer.ID(m.GetFrom()) == g.own {
		g.mu.Lock()
		g.lastID = id
		g.mu.Unlock()
	}
	return id
}

func unsignedID(topic string, data []byte) string {
	hash := sha256.New()
	hash.Write([]byte(topic))
	hash.Write([]byte{0})
	hash.Write(data)
	return string(hash.Sum(nil)[:unsignedIDSize])
}

// topic joins a topic once, without subscribing to it.
func (g *gossip) topic(name string) (*gossipTopic, error) {
	g.mu.Lock()
	t, ok := g.topics[name]
	g.mu.Unlock()
	if ok {
		return t, nil
	}
	joined, err := g.pubsub.Join(name)
	if err != nil {
		return nil, err
	}
	params := topicScore
	if err := joined.SetScoreParams(&params); err != nil {
		return nil, err
	}
	t = &gossipTopic{Topic: joined, seen: make(map[string]struct{})}
	g.mu.Lock()
	g.topics[name] = t
	g.mu.Unlock()
	return t, nil
}

func (g *gossip) subscribe(name string) error {
	t, err := g.topic(name)
	if err != nil || t.subscribed {
		return err
	}
	subscription, err := t.Subscribe(pubsub.WithBufferSize(subscriptionBuffer))
	if err != nil {
		return err
	}
	g.mu.Lock()
	t.subscribed = true
	g.mu.Unlock()
	go func() {
		for {
			m, err := subscription.Next(context.Background())
			if err != nil {
				return // pubsub has ended
			}
			if m.ReceivedFrom != g.own {
				g.delivered(t, m)
			}
		}
	}()
	return nil
}

func (g *gossip) delivered(t *gossipTopic, m *pubsub.Message) {
	now := epochMilliseconds()
	sum := sha256.Sum256(m.Data)
	g.mu.Lock()
	if t.count == 0 {
		t.first = now
	}
	t.count, t.last = t.count+1, now
	if len(t.seen) < maxSeen {
		t.seen[m.ID] = struct{}{}
	}
	g.mu.Unlock()
	g.emit(message{
		"event": "gossip", "topic": m.GetTopic(), "from": m.ReceivedFrom, "id": hex.EncodeToString([]byte(m.ID)),
		"size": len(m.Data), "sha256": hex.EncodeToString(sum[:]), "at_ms": now,
	})
}

// validate sets the verdict for what comes from now on. The library is asked to
// wait for verdicts from the first time on, and not before: without, messages take
// its shorter way.
func (g *gossip) validate(name string, v verdict) error {
	t, err := g.topic(name)
	if err != nil {
		return err
	}
	g.mu.Lock()
	t.verdict = v
	first := !t.validated
	t.validated = true
	g.mu.Unlock()
	if !first {
		return nil
	}
	return g.pubsub.RegisterTopicValidator(name, func(ctx context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		g.mu.Lock()
		v := t.verdict
		g.mu.Unlock()
		if m.ReceivedFrom == g.own {
			return pubsub.ValidationAccept
		}
		if v.delay > 0 {
			select {
			case <-time.After(v.delay):
			case <-ctx.Done():
				return pubsub.ValidationIgnore
			}
		}
		return v.result
	})
}

// publish returns the message's ID.
func (g *gossip) publish(ctx context.Context, name string, data []byte) (string, error) {
	t, err := g.topic(name)
	if err != nil {
		return "", err
	}
	if err := t.Publish(ctx, data); err != nil {
		return "", err
	}
	if !g.signed {
		return unsignedID(name, data), nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastID, nil
}

func (g *gossip) received(name string) (message, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.topics[name]
	if !ok || !t.subscribed {
		return nil, errNotSubscribed
	}
	result := message{"count": t.count, "unique": len(t.seen), "first_ms": nil, "last_ms": nil}
	if t.count > 0 {
		result["first_ms"], result["last_ms"] = t.first, t.last
	}
	return result, nil
}

func epochMilliseconds() float64 {
	return float64(time.Now().UnixMicro()) / 1000
}
