"""Every metric: a line each. The names and labels are an interface: lines are added, never changed.

Names and units are Prometheus' conventions: base units, `_total` for what only grows, labels with few values. Nothing
that a stranger says becomes a label: no peer IDs, addresses, agents, or protocols that this node doesn't know.
What many a program may name (protocols, topics) has MOST values at most, and "other" for the rest.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

# values of a label that programs choose
MOST = 64


class Metric(NamedTuple):
    """`help` says what it is, `advice` what somebody does when it moves."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    advice: str


class Part(NamedTuple):
    """The metrics of one part of the node."""

    name: str
    metrics: tuple[Metric, ...]


def _counter(name: str, labels: str, help: str, advice: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), help, advice)


def _gauge(name: str, labels: str, help: str, advice: str) -> Metric:
    return Metric(name, "gauge", tuple(labels.split()), help, advice)


def _histogram(name: str, labels: str, help: str, advice: str) -> Metric:
    return Metric(name, "histogram", tuple(labels.split()), help, advice)


# a table: laid out by hand
# fmt: off
CATALOGUE: tuple[Part, ...] = (
    Part("Bounds", (
        _gauge("vouch_bound_used", "bound",
               "How much of a bound is used",
               "Near its limit for long: raise the setting of that name, or find who uses it up."),
        _gauge("vouch_bound_limit", "bound",
               "The bound",
               "Changes with the settings alone."),
        _counter("vouch_bound_refused_total", "bound",
                 "How often a bound has said no, or something gave way",
                 "Grows: the bound is at work. In an attack that is right; else raise the setting."),
    )),
    Part("Node", (
        _gauge("vouch_build_info", "version python libp2p",
               "Versions; the value is 1",
               "Tells what runs where, and when it was replaced."),
        _gauge("vouch_uptime_seconds", "",
               "Since the node has started",
               "Falls to 0 at a restart that nobody asked for: read the log before it."),
        _counter("vouch_events_total", "event",
                 "Events by kind (docs/operating.md)",
                 "Many misbehaved, peer_lost or pool_low: `vouch events` and the log say who."),
        _counter("vouch_misbehaviour_total", "reason",
                 "Rules that peers broke: protocol, flood, bad_record",
                 "A few are other versions' faults; many come from an attacker, whom the node bans by itself."),
        _histogram("vouch_event_loop_lag_seconds", "",
                   "How late tasks run that are due",
                   "Over 0.1 s often: a handler computes too long, or the machine is too small; `vouch run --profile` "
                   "shows which."),
        _counter("vouch_log_lines_total", "outcome",
                 "Lines of the log: printed, collapsed into a count, dropped as nobody read",
                 "Any dropped: whatever reads the log is too slow or hangs. Many collapsed: the log says of what."),
        _gauge("vouch_tasks", "",
               "Tasks of the event loop",
               "Grows while peers and streams don't: something isn't ended; report it."),
        _counter("process_cpu_seconds_total", "",
                 "CPU time of the process",
                 "Its rate is the part of one core that is used; the node uses one."),
        _gauge("process_resident_memory_bytes", "",
               "Memory of the process",
               "Grows for days at the same load: compare the bounds that are bytes, then report it."),
        _gauge("process_open_fds", "",
               "Open file descriptors",
               "Near process_max_fds new connections fail: raise the limit (LimitNOFILE, ulimit -n)."),
        _gauge("process_max_fds", "",
               "How many file descriptors may be open",
               "Should be at least twice max_connections."),
        _gauge("process_start_time_seconds", "",
               "Unix time of the process' start",
               "As vouch_uptime_seconds, for rules that other programs bring along."),
        _counter("python_gc_collections_total", "generation",
                 "Runs of the garbage collector",
                 "Generation 2 more than a few times a minute costs lag."),
    )),
    Part("Connections", (
        _gauge("vouch_peers", "direction",
               "Admitted peers, by who dialled",
               "Below low_peers for minutes: is the bootstrap reachable, is the clock right? No inbound ones at all: "
               "the port can't be reached from outside."),
        _gauge("vouch_connections", "direction transport",
               "Connections, admitted or not",
               "Far more than peers: strangers hold half-open ones, see the bound max_half_open."),
        _counter("vouch_connections_opened_total", "direction transport",
                 "Connections that were secured",
                 "A jump inbound is a newcomer's flood or a network that restarts."),
        _counter("vouch_connections_ended_total", "direction transport reason",
                 "Connections that have ended",
                 "lost: links that die; bad_frames: peers with another muxer's faults, or attackers; surplus: more "
                 "peers than high_peers."),
        _counter("vouch_handshakes_total", "direction outcome",
                 "Admissions by outcome: admitted, or why not",
                 "network_id or no_handshake: somebody has your address for another network; client_version: peers "
                 "that are to be updated; upgrade_timeout, upgrade_failed: scanners."),
        _histogram("vouch_handshake_seconds", "direction",
                   "From the socket to the admission",
                   "Slower than a few round trips: the machine is short of CPU, see the lag."),
        _counter("vouch_connections_banned_total", "",
                 "Connections and dials that a ban forbade",
                 "Grows fast: who is banned comes again and again; ban the network in the firewall if it costs CPU."),
        _counter("vouch_dials_total", "outcome",
                 "Dials of peers: connected, refused, failed, timeout, limit, backoff (not tried again yet), given_up",
                 "Mostly failed or timeout: the addresses are stale, or this node has no way out."),
        _histogram("vouch_dial_seconds", "",
                   "Dials that connected, with their wait for a turn",
                   "Near dial_timeout: far or slow peers, or max_dials too small."),
        _counter("vouch_dial_addresses_total", "transport outcome",
                 "Addresses dialled: connected, refused, failed, banned, limit, given_up (another address was faster, "
                 "or too late)",
                 "quic fails and tcp doesn't: UDP is blocked on the way."),
        _counter("vouch_dial_budget_refused_total", "",
                 "Dials on a stranger's word that an IP's budget forbade",
                 "Grows fast: somebody spreads addresses to make us dial a victim; nothing to do."),
        _gauge("vouch_peers_by_round_trip", "range",
               "Watched peers by their smoothed round trip",
               "Moves to longer ranges all at once: our own line is full."),
        _gauge("vouch_peers_flaky", "",
               "Peers that miss heartbeats",
               "Many at once: our own line, or our own lag."),
        _counter("vouch_records_verified_total", "",
                 "Signatures of peer records that were checked",
                 "Costs 0.1 ms each; a flood is bounded by the exchange's rules."),
    )),
    Part("Streams", (
        _gauge("vouch_streams", "protocol",
               "Open streams; negotiation: no protocol agreed on yet",
               "negotiation stays high: peers open streams and say nothing."),
        _counter("vouch_streams_opened_total", "protocol direction",
                 "Streams opened",
                 "Far more than requests: a client opens one for each, see docs/messages.md."),
        _counter("vouch_stream_bytes_total", "protocol direction",
                 "Bytes of streams (received, sent), without the muxer's and the encryption's; the admission's own "
                 "streams aren't all counted",
                 "Tells which protocol the line is used for."),
        _counter("vouch_streams_refused_total", "protocol",
                 "Streams past a protocol's bound for one peer",
                 "A peer asks more at once than streams_per_peer of that protocol allows."),
        _counter("vouch_stream_proposals_unknown_total", "",
                 "Proposals of protocols that this node doesn't have",
                 "Usual with other libp2p peers, which try what they know."),
        _counter("vouch_stream_handlers_failed_total", "protocol",
                 "Handlers that raised: faults of programs",
                 "Any: the log has the traceback, as handler_failed."),
    )),
    Part("Gossip", (
        _gauge("vouch_gossip_peers", "",
               "Peers that speak pubsub",
               "Fewer than admitted peers: some have no gossip, or another version."),
        _gauge("vouch_gossip_mesh_peers", "topic",
               "Peers in a topic's mesh",
               "Below 5 while there are more subscribers: they prune us; look at the scores and prunes."),
        _gauge("vouch_gossip_subscribers", "topic",
               "Connected peers that subscribe to a topic",
               "0: nobody connected is in it; nothing arrives."),
        _counter("vouch_gossip_published_total", "",
                 "Messages published here",
                 "As the program does."),
        _counter("vouch_gossip_delivered_total", "",
                 "Messages handed to whoever decides",
                 "0 while others publish: is the topic joined, has it a mesh?"),
        _counter("vouch_gossip_verdicts_total", "verdict",
                 "Verdicts: accept, reject, ignore",
                 "Many reject: a peer sends junk (its score falls), or the rules of two versions differ."),
        _counter("vouch_gossip_refused_total", "reason",
                 "Messages that broke the network's rules (signature, age, form), before anybody decides",
                 "timestamp: a clock is wrong, perhaps ours; signature: an attacker, or another network."),
        _counter("vouch_gossip_unjudged_total", "reason",
                 "Messages without a verdict: timeout, no_room, unsubscribed, queue (the decider's was full), late (a "
                 "verdict after its time)",
                 "Any: whoever decides is too slow; they are not relayed."),
        _counter("vouch_gossip_validators_failed_total", "",
                 "Validators that raised",
                 "Any: a fault of the program; the log has it as validator_failed."),
        _histogram("vouch_gossip_validation_seconds", "",
                   "From delivery to verdict",
                   "Is added at each hop: what takes 0.1 s here takes a second over ten."),
        _histogram("vouch_gossip_propagation_seconds", "",
                   "From the author's clock to our delivery",
                   "All slower: our line or lag. One part of them: an author's clock."),
        _histogram("vouch_gossip_heartbeat_seconds", "",
                   "What a heartbeat of the router took",
                   "Over 0.1 s: too many topics or peers for this machine."),
        _counter("vouch_gossip_duplicates_total", "",
                 "Messages that came again",
                 "A few for each delivered are the mesh's redundancy; more than ten are waste."),
        _counter("vouch_gossip_router_total", "event",
                 "What the router counted beside that: graylisted, graft_early, ihave_ignored, promises_broken, "
                 "stranger and others (docs/gossip.md)",
                 "graylisted, graft_early, promises_broken: peers that misbehave."),
        _gauge("vouch_gossip_peers_by_score", "range",
               "Peers by score: graylisted (not heard), no_publish (not sent our own), no_gossip, negative, zero, "
               "positive",
               "Many below zero at once: our own verdicts may be wrong, not theirs."),
        _counter("vouch_gossip_queue_dropped_total", "kind",
                 "Lost in full queues to slow peers: message, control",
                 "Any: peers can't take it as fast as it comes, or our line is full."),
        _gauge("vouch_gossip_queue_bytes", "",
               "Bytes of messages that wait, of all peers",
               "Stays high: our line is full."),
        _counter("vouch_gossip_bytes_total", "direction",
                 "Bytes of RPCs, received and sent",
                 "Divide by what is delivered to see the redundancy."),
        _counter("vouch_gossip_rpcs_sent_total", "",
                 "RPCs sent",
                 "Few for many messages: they go together, which is cheap."),
        _counter("vouch_gossip_grafts_total", "",
                 "Peers taken into a mesh",
                 "As many as prunes, all the time: meshes don't settle."),
        _counter("vouch_gossip_prunes_total", "reason",
                 "Peers that left a mesh, by reason",
                 "Tells who ends links: we (for score, or too many) or they."),
    )),
    Part("Requests", (
        _counter("vouch_requests_total", "protocol outcome",
                 "Our requests: answered, error (the peer says so), timeout, lost, not_supported, given_up, failed",
                 "timeout: peers are slow or overrun; lost: connections end."),
        _histogram("vouch_request_seconds", "protocol",
                   "Our requests, from the call to its end",
                   "Rises with the peers' vouch_request_handler_seconds, or with the line."),
        _histogram("vouch_request_handler_seconds", "protocol",
                   "Requests of peers, from reading to answer",
                   "Is the program's own time, and the lag's."),
        _counter("vouch_messages_total", "protocol event",
                 "Messages: sent, requests, received, answered, refused (busy), failed (handler raised), unhandled, "
                 "late, unknown",
                 "refused: peers ask more than requests_in_flight; failed: the log has the fault."),
        _counter("vouch_messages_rejected_total", "protocol reason",
                 "Messages that broke the rules",
                 "timestamp: a clock; network_id, signature: another network, or an attacker."),
    )),
    Part("Kademlia", (
        _gauge("vouch_dht_table_peers", "",
               "Peers in the routing table",
               "0 for minutes: nobody connected serves the table."),
        _counter("vouch_dht_lookups_total", "question",
                 "Look-ups made",
                 "More than a few a minute without callers: the pool wants peers."),
        _histogram("vouch_dht_lookup_seconds", "",
                   "What look-ups took",
                   "Over 5 s: many in the table are gone; see vouch_dht_asked_total."),
        _counter("vouch_dht_asked_total", "outcome",
                 "Peers asked: answered, failed, timeout, not_supported, not_dialled",
                 "Mostly timeout: the table is stale, or we are cut off."),
        _counter("vouch_dht_questions_total", "question",
                 "What peers asked of us, and put_value_refused, add_provider_refused",
                 "refused: bad records, or no room (see the bounds dht_max_…)."),
        _gauge("vouch_dht_records", "kind",
               "Records kept: values, providers, own",
               "own falls to 0 after a restart: dht_store is memory."),
        _gauge("vouch_dht_value_bytes", "",
               "Bytes of the values",
               "Bounded by 4 KiB for each on average; see dht_max_values."),
    )),
    Part("Pool and address book", (
        _gauge("vouch_pool_target", "target",
               "Targets: low, target, high, outbound",
               "Changes with the settings alone."),
        _counter("vouch_pool_dials_total", "why",
                 "Dials begun: pool, feeler, static, reserve",
                 "reserve all the time: nobody else answers, the bootstrap carries the network."),
        _counter("vouch_pool_dial_failures_total", "why",
                 "Of them, those that failed",
                 "Most of them: the address book is stale; it will be weeded by itself."),
        _counter("vouch_pool_drops_total", "reason",
                 "Peers dropped: surplus, tested",
                 "surplus all the time: raise high_peers, or peers don't know that we are full."),
        _counter("vouch_pool_tests_total", "outcome",
                 "Addresses of inbound peers tested: ok, failed",
                 "Mostly failed: they are behind NATs."),
        _gauge("vouch_pool_shortage", "",
               "Candidates that were missing when last looked",
               "Over 0 for minutes: no source finds peers; name a bootstrap."),
        _gauge("vouch_pool_extras", "",
               "Outbound peers that don't count, as their subnets are crowded",
               "All peers are extras: the network lives in one data centre; raise subnet_share."),
        _gauge("vouch_addressbook_peers", "state",
               "Known peers: worked (reached once), heard",
               "worked stays 0: nothing we hear of can be reached."),
        _counter("vouch_addressbook_evicted_total", "",
                 "Peers that gave way to others",
                 "Grows fast: a flood of names, or max_known_peers is too small."),
        _gauge("vouch_addressbook_unwritten", "",
               "Peers and bans that wait to be written",
               "Stays high: the disk is slow, or full."),
        _counter("vouch_addressbook_writes_total", "outcome",
                 "Writes: ok, failed",
                 "Any failed: look at the disk; the log has addressbook_not_written."),
        _histogram("vouch_addressbook_write_seconds", "",
                   "What writes took",
                   "Over 1 s: the disk is too slow; the node goes on meanwhile."),
    )),
    Part("Sources of peers", (
        _counter("vouch_exchange_questions_total", "outcome",
                 "Peers asked for others: answered, not_supported, failed",
                 "failed: peers of other versions, or floods that are refused."),
        _counter("vouch_exchange_peers_heard_total", "",
                 "Peers that answers named",
                 "0 while there are answers: nobody knows anybody who was tested."),
        _counter("vouch_exchange_peers_told_total", "",
                 "Peers that we told others of",
                 "Bounded by exchange_window for each subnet."),
        _counter("vouch_exchange_refused_total", "",
                 "Questions refused, as their peer asks too often",
                 "Many: a peer collects addresses; it is banned by itself."),
        _gauge("vouch_rendezvous_registrations", "",
               "Registrations at this point",
               "Falls: peers don't renew; is the point reachable?"),
        _gauge("vouch_rendezvous_bytes", "",
               "Bytes of their records",
               "Bounded with max_registrations."),
        _counter("vouch_rendezvous_refused_total", "",
                 "Questions that this point answered with an error",
                 "Many: wrong records or a flood; the bounds max_registrations… say if it is room."),
        _counter("vouch_rendezvous_calls_total", "call outcome",
                 "Our calls of points: register, discover; ok, refused, failed",
                 "register fails for over an hour: others don't find us there."),
        _gauge("vouch_mdns_links", "",
               "Links that mDNS works on",
               "0 with mdns on: no interface has multicast (containers often have none)."),
        _gauge("vouch_mdns_peers", "",
               "Peers known of all links",
               "As many as there are on the link."),
        _counter("vouch_mdns_ignored_total", "",
                 "Packets and peers ignored; begins anew with its link",
                 "Grows fast: somebody floods the link."),
    )),
    Part("HTTP API", (
        _counter("vouch_api_requests_total", "",
                 "Requests",
                 "Far more than the dashboard and Prometheus make: who else asks?"),
        _counter("vouch_api_refused_total", "code",
                 "Requests refused, by the error's code",
                 "wrong_host, wrong_origin: a web page tries to reach the node; no_token: a client without one."),
    )),
)
# fmt: on

METRICS: dict[str, Metric] = {metric.name: metric for part in CATALOGUE for metric in part.metrics}
