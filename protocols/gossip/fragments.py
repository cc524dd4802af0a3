"""RPCs cut to fit a frame: one RPC -> RPCs, each within the limit, which say the same together. (How small ones are put
together: `outbound`.)

Sizes are upper bounds, a few bytes above what `encode` gives, so that nothing is encoded twice to be measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocols.gossip.rpc import (
    Control,
    Graft,
    IDontWant,
    IHave,
    IWant,
    PeerInfo,
    Prune,
    PubsubMessage,
    Rpc,
    Subscription,
    encode,
)

_FIELD = 6  # a tag and a length, at most (RPCs are far below 2^35 bytes)
_CONTROL = _FIELD  # around all the control messages


def size(rpc: Rpc) -> int:
    """At least the bytes that `encode(rpc)` has, and at most some bytes more for each thing in it."""
    total = sum(map(_subscription_size, rpc.subscriptions)) + sum(map(message_size, rpc.publish))
    return total + _CONTROL + _control_size(rpc.control) if rpc.control else total


def message_size(message: PubsubMessage) -> int:
    """The same for a message in an RPC."""
    fields = (message.from_, message.seqno, message.signature, message.key)
    total = 3 * _FIELD + len(message.data) + _text(message.topic)
    return total + sum(_FIELD + len(one) for one in fields if one is not None)


def fragments(rpc: Rpc, limit: int) -> list[Rpc]:
    """RPCs of at most `limit` bytes each which say together what `rpc` says, in its order.

    An IHAVE, IWANT, IDONTWANT or PRUNE that is too large becomes several. Raises ValueError if something that can't be
    divided (a message, a subscription, an ID) is larger than `limit`.
    """
    if size(rpc) <= limit:
        return [rpc]
    found: list[Rpc] = []
    held: list[Rpc] = []
    room = limit
    for atom in _atoms(rpc):
        needed = size(atom)
        if (
            needed > limit and (needed := len(encode(atom))) > limit
        ):  # what came in a frame fits one: the bound isn't it
            raise ValueError(f"expected nothing above {limit} bytes, got {_name(atom)} of {needed}")
        if needed > room:
            found.append(_joined(held))
            held, room = [], limit
        held.append(atom)
        room -= needed
    found.append(_joined(held))
    return found


def _atoms(rpc: Rpc) -> Iterator[Rpc]:
    """The smallest RPCs that `rpc` divides into."""
    for subscription in rpc.subscriptions:
        yield Rpc((subscription,))
    for message in rpc.publish:
        yield Rpc(publish=(message,))
    control = rpc.control or Control()
    for have in control.ihave:
        for one in have.message_ids:
            yield Rpc(control=Control(ihave=(IHave(have.topic, (one,)),)))
    for want in control.iwant:
        for one in want.message_ids:
            yield Rpc(control=Control(iwant=(IWant((one,)),)))
    for graft in control.graft:
        yield Rpc(control=Control(graft=(graft,)))
    for prune in control.prune:
        for peer in prune.peers:
            yield Rpc(control=Control(prune=(Prune(prune.topic, (peer,), prune.backoff),)))
        if not prune.peers:
            yield Rpc(control=Control(prune=(prune,)))
    for unwanted in control.idontwant:
        for one in unwanted.message_ids:
            yield Rpc(control=Control(idontwant=(IDontWant((one,)),)))


def _joined(rpcs: list[Rpc]) -> Rpc:
    """One RPC that says what all of them say; neighbours about the same topic become one again."""
    if len(rpcs) == 1:
        return rpcs[0]
    subscriptions: list[Subscription] = []
    publish: list[PubsubMessage] = []
    ihave: dict[str, list[bytes]] = {}
    iwant: list[bytes] = []
    graft: list[Graft] = []
    prune: dict[tuple[str, int | None], list[PeerInfo]] = {}
    idontwant: list[bytes] = []
    for rpc in rpcs:
        subscriptions.extend(rpc.subscriptions)
        publish.extend(rpc.publish)
        control = rpc.control
        if not control:
            continue
        for have in control.ihave:
            ihave.setdefault(have.topic, []).extend(have.message_ids)
        for want in control.iwant:
            iwant.extend(want.message_ids)
        graft.extend(control.graft)
        for one in control.prune:
            prune.setdefault((one.topic, one.backoff), []).extend(one.peers)
        for unwanted in control.idontwant:
            idontwant.extend(unwanted.message_ids)
    joined = Control(
        tuple(IHave(topic, tuple(ids)) for topic, ids in ihave.items()),
        (IWant(tuple(iwant)),) if iwant else (),
        tuple(graft),
        tuple(Prune(topic, tuple(peers), backoff) for (topic, backoff), peers in prune.items()),
        (IDontWant(tuple(idontwant)),) if idontwant else (),
    )
    return Rpc(tuple(subscriptions), tuple(publish), joined if joined else None)


def _control_size(control: Control) -> int:
    total = 0
    for have in control.ihave:
        total += 2 * _FIELD + _text(have.topic) + _ids_size(have.message_ids)
    total += sum(_FIELD + _ids_size(want.message_ids) for want in control.iwant)
    total += sum(_FIELD + _ids_size(unwanted.message_ids) for unwanted in control.idontwant)
    for graft in control.graft:
        total += 2 * _FIELD + _text(graft.topic)
    for prune in control.prune:
        total += 2 * _FIELD + 11 + _text(prune.topic)  # 11: the backoff
        total += sum(3 * _FIELD + len(peer.peer_id) + len(peer.record) for peer in prune.peers)
    return total


def _subscription_size(subscription: Subscription) -> int:
    return 2 * _FIELD + 2 + _text(subscription.topic)


def _ids_size(ids: tuple[bytes, ...]) -> int:
    return len(ids) * _FIELD + sum(map(len, ids))


def _text(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _name(atom: Rpc) -> str:
    if atom.publish:
        return "a message"
    return "a subscription" if atom.subscriptions else "a control message"
