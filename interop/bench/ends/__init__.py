"""The ends of the benchmarks in Python, each a process of its own: `python -m interop.bench.ends NAME`.

    vouch          our node
    vouch-open     the same in open admission, for peers that don't know the handshake
    vouch-stock    the same on py-libp2p's Noise and Yamux (`upgrade = "stock"`)
    stock          py-libp2p's own host, used as its users do
    tcp            32 bytes back and forth over a bare socket: what trio and the system take of a ping

    --connections N    as listener, take so many connections, where the end's own limits are lower

They speak lines as the Go peer does (`interop/process.py`), so that one harness drives all. `tcp` has connect,
identify, disconnect and ping; the others all of these:

    connect MULTIADDR        dials: {"total_ms", "admission_ms"}, the latter only where there is an admission
    identify PEER            waits until the peer of the current connection has been identified, so that this work isn't
                             done in the time of what is measured next
    disconnect PEER          closes every connection to it; both ends tell the event "disconnected"
    ping PEER N              as many pings on one stream: {"rtt_us"}
    perf PEER UP DOWN [STREAMS]   `/perf/1.0.0` on STREAMS streams at once, each UP bytes up and then DOWN bytes down:
                             {"upload_s", "download_s", "seconds"}, the longest of the streams', and the whole
    both PEER BYTES          as many bytes up on one stream and at the same time down on another: {"seconds"}
    streams PEER N WIDTH     N streams of `/vouch/echo/1.0.0`, WIDTH at a time, 32 bytes on each: {"seconds"}
    requests PEER N STREAMS  N frames of 128 bytes, echoed, over as many streams that stay open: {"seconds"}

    gossip-…                 `gossip.py` tells

Opening the streams of perf, both and requests isn't measured. Who answers perf tells the event "perf" for each stream,
with what it has "received" and "sent" in bytes. `total_ms` is the time of `Node.connect`, or of stock py-libp2p's
`Swarm.dial_addr`; `admission_ms` runs from when the connection is secured and multiplexed (`Connection.opened_at`) to
its event `Admitted`.
"""
