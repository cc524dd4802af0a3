"""Multicast DNS packets <-> what peers ask and tell each other (libp2p's specs/discovery/mdns.md, RFC 6762, RFC 6763).

    question    SERVICE                         PTR            SERVICE is _p2p._udp.local, or _p2p-X._udp.local for the
                                                               private network X
    answer      SERVICE                         PTR  NAME.SERVICE      NAME is random, it tells nothing of the peer
    additional  NAME.SERVICE                    TXT  "dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/PEERID" ...
                NAME.SERVICE                    SRV  port, NAME.local
                NAME.local                      A, AAAA        go-libp2p takes no answer without SRV and these
    question    _services._dns-sd._udp.local    PTR            for people who look around; its answer: PTR SERVICE

All addresses go in one TXT record, a string each: go-libp2p keeps the last record only. rust-libp2p leaves SERVICE off
the name that its PTR points to, and names itself anew in each answer; so names here are only what ties records
together, and a peer is its ID. `decode` takes any bytes. Left to the caller: which addresses are worth a dial.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from zeroconf import (
    DNSAddress,
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
)

META_SERVICE = "_services._dns-sd._udp.local"
# what one interface carries in one piece (RFC 6762, 17), headers taken off
MAX_ANSWER = 1400
# of what others send: RFC 6762 allows no more bytes; the counts are many times what a packet of peers holds
MAX_PACKET = 9000
MAX_RECORDS = 128
MAX_PEERS = 16
MAX_ADDRS = 16
# of names that a question says it knows
MAX_KNOWN = 14

_RESPONSE, _AUTHORITATIVE = 0x8000, 0x0400
_OPCODE_AND_RCODE = 0x780F
_IN, _UNIQUE = 0x0001, 0x8000
_A, _PTR, _TXT, _AAAA, _SRV, _ANY = 1, 12, 16, 28, 33, 255
_HEADER = 12
_MAX_STRING = 255
_MAX_NAME = 253
# a peer chose it: what isn't plain the encoder might refuse
_NAME = re.compile(r"([A-Za-z0-9_-]{1,63}\.){1,8}")
_DNSADDR = b"dnsaddr="
_ADDRESS = re.compile(r"((?:/[!-.0-~]+)+)/p2p/([1-9A-HJ-NP-Za-km-z]{32,128})")


@dataclass(frozen=True)
class Known:
    """One answer that somebody who asks has already: `ttl` seconds of it are left."""

    name: str
    ttl: float


@dataclass(frozen=True)
class Query:
    """Somebody asks for the peers of our service, or which services there are."""

    peers: bool
    services: bool = False
    known: tuple[Known, ...] = ()


@dataclass(frozen=True)
class Found:
    """A peer that was named in an answer. `addrs` come without /p2p/PEER; a `ttl` of 0 seconds says that it goes."""

    peer: str
    addrs: tuple[str, ...]
    ttl: float
    name: str


def query(service: str, known: Iterable[Known] = ()) -> list[bytes]:
    """The packets that ask for the peers of `service`, but for those whose answer is known."""
    out = DNSOutgoing(0)
    out.add_question(DNSQuestion(f"{service}.", _PTR, _IN))
    sayable = (answer for answer in known if len(answer.name) <= _MAX_NAME and _NAME.fullmatch(answer.name))
    for answer in islice(sayable, MAX_KNOWN):
        out.add_answer_at_time(DNSPointer(f"{service}.", _PTR, _IN, int(answer.ttl), answer.name), 0.0)
    return out.packets()


def answer(service: str, name: str, peer: str, addrs: Sequence[str], ttl: float) -> bytes:
    """The packet that tells where `peer` is: the first of the addresses (which come without /p2p/PEER) that fit.

    With a `ttl` of 0 seconds it tells that the peer goes.
    """
    addrs = list(addrs[:MAX_ADDRS])
    while True:
        first, *more = _answer(service, name, peer, addrs, int(ttl))
        if (not more and len(first) <= MAX_ANSWER) or not addrs:
            return first
        addrs.pop()


def _answer(service: str, name: str, peer: str, addrs: Sequence[str], ttl: int) -> list[bytes]:
    instance, host = f"{name}.{service}.", f"{name}.local."
    out = DNSOutgoing(_RESPONSE | _AUTHORITATIVE)
    out.add_answer_at_time(DNSPointer(f"{service}.", _PTR, _IN, ttl, instance), 0.0)
    text = b""
    ips: dict[str, None] = {}
    port = 0
    for addr in addrs:
        string = f"dnsaddr={addr}/p2p/{peer}".encode()
        if len(string) > _MAX_STRING:
            continue
        text += bytes([len(string)]) + string
        _, _, ip, _, number, *_ = [*addr.split("/"), "", "", ""]
        ips[ip] = None
        port = port or (int(number) if number.isdecimal() else 0)
    out.add_additional_answer(DNSService(instance, _SRV, _IN | _UNIQUE, ttl, 0, 0, port, host))
    out.add_additional_answer(DNSText(instance, _TXT, _IN | _UNIQUE, ttl, text or b"\0"))
    for ip in ips:
        packed = ipaddress.ip_address(ip).packed
        kind = _A if len(packed) == 4 else _AAAA
        out.add_additional_answer(DNSAddress(host, kind, _IN | _UNIQUE, ttl, packed))
    return out.packets()


def services(service: str, ttl: float) -> bytes:
    """The packet that says which service this is, to whoever looks around."""
    out = DNSOutgoing(_RESPONSE | _AUTHORITATIVE)
    out.add_answer_at_time(DNSPointer(f"{META_SERVICE}.", _PTR, _IN, int(ttl), f"{service}."), 0.0)
    return out.packets()[0]


def concerns(data: bytes, service: str) -> bool:
    """Whether a packet may be of `service` at all: most that is multicast isn't, and isn't worth decoding.

    Names are compressed by whole labels only, so the first label of ours stands somewhere as it is.
    """
    if not _HEADER <= len(data) <= MAX_PACKET:
        return False
    if sum(int.from_bytes(data[at : at + 2], "big") for at in range(4, _HEADER, 2)) > MAX_RECORDS:
        return False
    label = service.partition(".")[0].lower().encode()
    lowered = data.lower()
    return bytes([len(label)]) + label in lowered or b"\x09_services" in lowered


def decode(data: bytes, service: str) -> Query | list[Found] | None:
    """What a packet asks or tells of `service`; None if nothing. Takes any bytes."""
    if not concerns(data, service):
        return None
    try:
        packet = DNSIncoming(data)
        records = packet.answers() if packet.valid else []
    except (
        Exception
    ):  # the codec says what it can't read by `valid`; a fault of its own over a stranger's bytes is no more
        return None
    if not packet.valid or packet.flags & _OPCODE_AND_RCODE:
        return None
    wanted = f"{service}.".lower()
    return _question(packet, records, wanted) if packet.is_query() else _peers(records, wanted)


def _question(packet: DNSIncoming, records: Iterable[DNSRecord], service: str) -> Query | None:
    asked = {
        question.name.lower()
        for question in packet.questions
        if question.type in (_PTR, _ANY) and question.class_ & ~_UNIQUE == _IN
    }
    peers, others = service in asked, f"{META_SERVICE}." in asked
    if not peers and not others:
        return None
    known = (
        Known(record.alias, record.ttl)
        for record in records
        if isinstance(record, DNSPointer) and record.type == _PTR and record.key == service
    )
    return Query(peers, others, tuple(known))


def _peers(records: Iterable[DNSRecord], service: str) -> list[Found] | None:
    names: dict[str, tuple[str, float]] = {}
    texts: dict[str, list[bytes]] = {}
    for record in records:
        if isinstance(record, DNSPointer):
            if record.type == _PTR and record.key == service and len(names) < MAX_PEERS:
                names[record.alias.lower()] = record.alias, record.ttl
        elif isinstance(record, DNSText) and record.type == _TXT:
            texts.setdefault(record.key, []).append(record.text)
    found = (_peer(name, ttl, texts.get(key, [])) for key, (name, ttl) in names.items())
    return [peer for peer in found if peer is not None] or None


def _peer(name: str, ttl: float, texts: Iterable[bytes]) -> Found | None:
    """The peer whose addresses the TXT records hold: the first that they name, for there is one to a name."""
    peer = ""
    addrs: dict[str, None] = {}
    for string in (string for text in texts for string in _strings(text)):
        match = _ADDRESS.fullmatch(string[len(_DNSADDR) :].decode("latin-1")) if string.startswith(_DNSADDR) else None
        if match is None or match[2] != (peer or match[2]):
            continue
        peer = match[2]
        addrs[match[1]] = None
        if len(addrs) == MAX_ADDRS:
            break
    return Found(peer, tuple(addrs), ttl, name) if peer else None


def _strings(text: bytes) -> Iterable[bytes]:
    """The strings of a TXT record, each after its length; the last may be cut short."""
    at = 0
    while at < len(text):
        end = at + 1 + text[at]
        yield text[at + 1 : end]
        at = end
