"""What can be asked of a running node's rendezvous: who is registered here, and who at another point."""

from __future__ import annotations

import msgspec

from node.envelopes import open_record
from node.errors import OffError, UsageError, VouchError
from node.names import parse_peer_addr
from node.node import Node
from protocols.rendezvous.rules import Row
from protocols.rendezvous.service import discover as ask
from protocols.rendezvous.wire import MAX_NAMESPACE, Refused, Register

# rows of one answer; who wants more asks again from `next`
PAGE = 500
# verified at most for one call, and asked for at once
MAX_DISCOVERED = 1000


class RegistrationQuery(msgspec.Struct, forbid_unknown_fields=True):
    """`after`: the `next` of the answer before. Without `namespace` all of them."""

    namespace: str | None = None
    after: int = 0


class Registration(msgspec.Struct):
    """A peer at a rendezvous point. `ttl`: seconds that are left; `form`: of its record, standard or legacy."""

    peer: str
    namespace: str
    addrs: list[str]
    ttl: float
    form: str


class Registrations(msgspec.Struct):
    """Who is registered here: a page of it, `next` 0 on the last one; `total` in all namespaces; `refused` questions
    since the start."""

    registrations: list[Registration]
    next: int
    total: int
    refused: int


class DiscoverWhere(msgspec.Struct, forbid_unknown_fields=True):
    """`address`: the point's multiaddr with /p2p/PEERID. Without `namespace` the network's; `every`: all namespaces."""

    address: str
    namespace: str | None = None
    every: bool = False
    limit: int = MAX_DISCOVERED


class Discovered(msgspec.Struct):
    """Who is registered at the point; `bad` registrations had records that aren't their peers' own."""

    point: str
    registrations: list[Registration]
    bad: int


async def registrations(node: Node, params: RegistrationQuery) -> Registrations:
    """Who is registered at this node."""
    if node.point is None:
        raise OffError('expected a rendezvous point: `vouch tracker`, or rendezvous_point = "on" in the settings')
    kept, now = node.point.registrations, node.point.clock()
    page: list[Row] = []
    for row in kept.after(params.after, params.namespace):
        if len(page) == PAGE:
            break
        page.append(row)
    return Registrations(
        [_shown(row.record, row.namespace, row.expires - now) for row in page],
        next=page[-1].number if len(page) == PAGE else 0,
        total=len(kept),
        refused=node.point.refused,
    )


async def discover(node: Node, params: DiscoverWhere) -> Discovered:
    """Connects with a rendezvous point and asks it."""
    peer = str(parse_peer_addr(params.address)[0])
    if not 1 <= params.limit <= MAX_DISCOVERED:
        raise UsageError(f"expected a limit of 1 to {MAX_DISCOVERED}, got {params.limit}")
    namespace = params.namespace or node.config.rendezvous_namespace_or_default
    if len(namespace.encode()) > MAX_NAMESPACE:
        raise UsageError(f"expected a namespace of at most {MAX_NAMESPACE} bytes, got {len(namespace.encode())}")
    await node.connect(params.address)
    found: list[Register] = []
    cookie = b""
    while len(found) < params.limit:
        try:
            answer = await ask(
                node, peer, None if params.every else namespace, cookie=cookie, limit=params.limit - len(found)
            )
        except Refused as refused:
            raise VouchError(f"{peer} answers with error {int(refused.status)}: {refused.text}") from None
        found += answer.registrations[: params.limit - len(found)]
        if not answer.registrations or answer.cookie == cookie:
            break
        cookie = answer.cookie
    shown, bad = [], 0
    for registration in found:
        try:
            shown.append(_shown(registration.record, registration.namespace, float(registration.ttl or 0)))
        except ValueError:
            bad += 1
    return Discovered(peer, shown, bad)


def _shown(record: bytes, namespace: str, ttl: float) -> Registration:
    signed = open_record(record)
    addrs = [addr if "/p2p/" in addr else f"{addr}/p2p/{signed.peer}" for addr in signed.addrs]
    return Registration(signed.peer, namespace, addrs, round(max(0.0, ttl), 3), str(signed.form))
