"""`python -m interop.bench.ends NAME [--connections N] [--listen MULTIADDR]`: see the package."""

from __future__ import annotations

import argparse
import logging

import trio

from interop.bench.ends.lines import LISTEN, LISTEN_QUIC, End, serve

NAMES = ("vouch", "vouch-open", "vouch-stock", "vouch-quic", "stock", "stock-quic", "tcp")


def end(name: str, connections: int | None, listen: str | None) -> End:
    """The end of that name. What it needs is imported here: a bare socket shouldn't wait for libp2p."""
    if name == "tcp":
        from interop.bench.ends.tcp import tcp

        return tcp()
    over_quic = name.endswith("-quic")
    if name in ("stock", "stock-quic"):
        from interop.bench.ends.stock import stock

        return stock(connections, over_quic=over_quic)
    from interop.bench.ends.vouch import vouch

    return vouch(
        upgrade="stock" if name == "vouch-stock" else "fast",
        admission="open" if name in ("vouch-open", "vouch-quic") else "required",
        connections=connections,
        listen=listen or (LISTEN_QUIC if over_quic else LISTEN),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="interop.bench.ends", description="One end of a benchmark.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--connections", type=int, metavar="N", help="take so many as listener")
    parser.add_argument("--listen", metavar="MULTIADDR", help="where; vouch alone can be told")
    args = parser.parse_args()
    # what py-libp2p says of connections that end is not of interest, and writing it would be measured
    logging.disable(logging.CRITICAL)
    trio.run(serve, end(args.name, args.connections, args.listen))


if __name__ == "__main__":
    main()
