"""`vouch ping` and `vouch perf`: how far away a peer is, and how fast bytes go there and back.

Both can do without a running node (`node.cli.remote.with_node`). What the figures are is told by rules without I/O:
`Series`, and `speed`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from typing import Any

from node.cli.parser import settings_from
from node.cli.remote import Ask, print_json, with_node
from node.cli.shown import rank, safe, size
from node.errors import UsageError, VouchError

MAX_TIMEOUT = 30.0


@dataclass
class Series:
    """Round trips in seconds, and how many pings had no answer."""

    rtts: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def sent(self) -> int:
        return len(self.rtts) + self.lost

    @property
    def loss(self) -> float:
        """The part of the pings that was lost, 0 to 1."""
        return self.lost / self.sent if self.sent else 0.0

    def figures(self) -> dict[str, float]:
        """min, avg, p50, p99 (nearest rank), max, in seconds; empty without an answer."""
        if not self.rtts:
            return {}
        ordered = sorted(self.rtts)
        return {
            "min": ordered[0],
            "avg": sum(ordered) / len(ordered),
            "p50": rank(ordered, 0.5),
            "p99": rank(ordered, 0.99),
            "max": ordered[-1],
        }


def speed(count: int, seconds: float) -> float:
    """Bytes a second; 0 if nothing was moved."""
    return count / seconds if seconds > 0 else 0.0


def ping(args: argparse.Namespace) -> int:
    """Pings a peer; exit status 1 if an answer is missing."""
    if args.timeout > MAX_TIMEOUT:
        raise UsageError(f"--timeout: expected at most {MAX_TIMEOUT:g} s, got {args.timeout:g}")

    def command(ask: Ask) -> int:
        series, reason, peer = Series(), "", ""
        try:
            while series.sent < args.count:
                if series.sent:
                    time.sleep(args.interval)
                peer, error = _ping_once(ask, args, series, peer)
                reason = error or reason
        except KeyboardInterrupt:
            if not series.sent:
                raise
        figures = series.figures()
        if args.json:
            answer: dict[str, Any] = {"peer": peer, "rtts": series.rtts, "lost": series.lost, "loss": series.loss}
            print_json({**answer, **figures, "error": reason})
        else:
            _tell(series, figures)
        return 1 if series.lost else 0

    return with_node(settings_from(args).config, command)


def _ping_once(ask: Ask, args: argparse.Namespace, series: Series, peer: str) -> tuple[str, str]:
    """One ping into the series; the peer, and why it was lost, or ""."""
    try:
        answer = ask("ping", target=args.target, timeout=args.timeout)
    except VouchError as error:
        if not series.sent or isinstance(error, UsageError):
            raise
        answer = {"peer": peer, "rtts": [], "lost": 1, "error": str(error)}  # it has gone meanwhile
    series.rtts += answer["rtts"]
    series.lost += answer["lost"]
    if not args.json:
        told = safe(answer["error"]) if answer["lost"] else f"{series.rtts[-1] * 1e6:.0f} µs"
        print(f"{series.sent}: {told}", flush=True)
    return answer["peer"], answer["error"] if answer["lost"] else ""


def _tell(series: Series, figures: dict[str, float]) -> None:
    loss = f"{series.lost} lost ({series.loss:.0%})" if series.lost else "0 lost"
    told = f"{len(series.rtts)} answered, {loss}"
    if figures:
        numbers = "/".join(f"{figures[name] * 1e6:.0f}" for name in ("min", "avg", "p99", "max"))
        told += f"; min/avg/p99/max {numbers} µs"
    print(told)


def perf(args: argparse.Namespace) -> int:
    """Measures throughput."""

    def command(ask: Ask) -> int:
        for _ in range(args.count):
            answer = ask("perf", target=args.target, upload=args.upload, download=args.download, streams=args.streams)
            answer["upload_speed"] = speed(answer["upload"], answer["upload_seconds"])
            answer["download_speed"] = speed(answer["download"], answer["download_seconds"])
            if args.json:
                print(json.dumps(answer), flush=True)
                continue
            for way in ("upload", "download"):
                if answer[way]:
                    moved, took = size(answer[way]), answer[f"{way}_seconds"]
                    print(f"{way:8}  {size(answer[f'{way}_speed'])}/s  ({moved} in {took:.3f} s)", flush=True)
        return 0

    return with_node(settings_from(args).config, command)
