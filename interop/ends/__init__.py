"""The ends of the matrix in Python, each a process of its own: `python -m interop.ends vouch|stock [flags]`.

    vouch    our node, as users run it
    stock    py-libp2p's own host with its own gossipsub, Kademlia, identify and ping: no handshake, no signed messages

Flags, commands, replies and events are those of the Go peer (interop/go/main.go), so that one harness drives all:

    --listen MULTIADDR          repeatable (default /ip4/127.0.0.1/tcp/0)
    --security noise|tls        what is offered over TCP and WebSocket; ours takes both with a comma
    --network-id, --client-version, --min-version NAME=N.N.N     of the handshake
    --handshake=false           ours: open admission
    --pubsub signed|unsigned    gossipsub: StrictSign, or as networks of vouch sign
    --kad PREFIX                Kademlia on PREFIX/kad/1.0.0
    --kad-refresh=off           ours: it doesn't look around in Kademlia by itself, so that it is known who knows whom
    --heartbeat SECONDS         of gossipsub

Ours has more commands: `local KEY` (the value that it keeps, for others or its own), `local-providers MULTIHASH` (whom
it knows without asking), `score PEER`, `heartbeat PEER`, `exchange PEER`, `renew [flags]` (another node, with those
flags, in place of this one: nothing is remembered).

The node never reads the environment variable INTEROP_MUTATE; this program does (`mutate.py`).
"""
