"""Signed peer records: a peer's addresses, signed by it, that anybody may pass on. Ours, and the checking of others'.

    Envelope { public_key = 1, payload_type = 2 (03 01), payload = 3 (a PeerRecord), signature = 5 }
    PeerRecord { peer_id = 1, seq = 2, addresses = 3 { multiaddr = 1 } }
    signed: domain, payload type and payload, each with its length before it

https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md and 0003-routing-records.md. Ours is made once,
and anew with a higher `seq` when our addresses have changed. `seq` is the time in Unix milliseconds, so it is higher
after a restart too; where the clock was set back, it goes on from the last one, which `last_seq` and `on_own` keep. Of
our addresses it names those of the widest reach (`node.peers.reach`), since a record can't be told in part.

Others' are checked as any stranger's bytes: size, form, signature, that the key is the peer's, and that `seq` isn't
lower than what is known of the peer. Each record is verified once: verdicts are kept by hash, bad ones too. Of its
addresses the first 16 are kept that can be read and dialled. Which of them are true is not the record's to prove.
"""

from __future__ import annotations

import hashlib
import time
import typing
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import base58
from google.protobuf.message import DecodeError
from libp2p.peer.pb.envelope_pb2 import Envelope
from libp2p.peer.pb.peer_record_pb2 import PeerRecord
from multiaddr import Multiaddr

from node.peers.reach import reach_of, widest
from protocols.framing import encode_uvarint
from protocols.messages.authors import MAX_SIGNATURE_BYTES, Author, Signer, author_of, encode_key, peer_id_of

DOMAIN = b"libp2p-peer-record"
PAYLOAD_TYPE = b"\x03\x01"
# sixteen addresses, the largest key and the largest signature are less
MAX_RECORD = 4 * 1024
MAX_ADDRS = 16
MAX_ADDR_BYTES = 256
# what a signed 64-bit number holds, as databases have them
MAX_SEQ = (1 << 63) - 1
REMEMBERED = 4096

Reason = typing.Literal["size", "form", "signature", "peer", "seq"]


class RecordError(ValueError):
    """A record that isn't taken. `reason` is a fixed word: size, form, signature, peer (it isn't its signer's, or not
    the peer's that was expected), seq (an older one than is known, which is nobody's fault)."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says, once it is verified. `addrs` are without /p2p/PEER, and may be none."""

    peer: str
    seq: int
    addrs: tuple[str, ...]


class Records:
    """Our own record, and the judgement on others'.

    addrs: our dialable addresses, looked at whenever our record is asked for.
    can_dial: whether a transport of ours dials an address.
    last_seq, on_own: the highest `seq` of ours that is kept over restarts, and who keeps it.
    known_seq: the `seq` that the address book knows of a peer, 0 for none; what was taken lately is remembered here.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        addrs: Callable[[], Sequence[Multiaddr]],
        can_dial: Callable[[Multiaddr], bool] = lambda _addr: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.known_seq: Callable[[str], int] = lambda _peer: 0
        self.last_seq: Callable[[], int] = lambda: 0
        self.on_own: Callable[[int], None] = lambda _seq: None
        self.verified = 0  # signatures that were looked at, for metrics
        self._signer = signer
        self._peer_id = peer_id_of(signer.public_key)
        self._addrs = addrs
        self._can_dial = can_dial
        self._clock = clock
        self._own = b""
        self._own_addrs: tuple[str, ...] | None = None
        self._own_seq = 0
        self._verdicts: OrderedDict[bytes, Record | RecordError] = OrderedDict()
        self._latest: OrderedDict[str, int] = OrderedDict()

    # ours

    def own(self) -> bytes:
        """Our signed record, as it is passed on."""
        addrs = tuple(widest(dict.fromkeys(str(addr).partition("/p2p/")[0] for addr in self._addrs())))[:MAX_ADDRS]
        last = max(self._own_seq, self.last_seq())
        if addrs != self._own_addrs or self._own_seq < last:
            self._own_seq = max(int(self._clock() * 1000), last + 1)
            self.on_own(self._own_seq)
            self._own = seal(self._signer, addrs, self._own_seq)
            self._own_addrs = addrs
        return self._own

    @property
    def own_seq(self) -> int:
        """The `seq` of the record that `own` gave last; 0 if it never did."""
        return self._own_seq

    # others'

    def accept(self, data: bytes, *, peer: str | None = None) -> Record:
        """The record in `data`, if it is to be believed and is none older than we know. Raises RecordError.

        `peer`: whose it must be, where that is known.
        """
        record = self.verify(data)
        if peer is not None and record.peer != peer:
            raise RecordError("peer", f"expected the record of {peer}, got that of {record.peer}")
        known = max(self._latest.get(record.peer, 0), self.known_seq(record.peer))
        if record.seq < known:
            raise RecordError("seq", f"expected a record of {record.peer} with seq {known} or more, got {record.seq}")
        self._latest[record.peer] = record.seq
        self._latest.move_to_end(record.peer)
        if len(self._latest) > REMEMBERED:
            self._latest.popitem(last=False)
        return record

    def verify(self, data: bytes) -> Record:
        """The record in `data`, whatever else is known of the peer. Raises RecordError."""
        if not 0 < len(data) <= MAX_RECORD:
            raise RecordError("size", f"expected a signed record of 1 to {MAX_RECORD} bytes, got {len(data)}")
        digest = hashlib.sha256(data).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None:
            try:
                self.verified += 1
                verdict = unseal(data, self._can_dial)
            except RecordError as error:
                verdict = error
            self._verdicts[digest] = verdict
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
        else:
            self._verdicts.move_to_end(digest)
        if isinstance(verdict, RecordError):
            raise RecordError(verdict.reason, str(verdict))
        return verdict


def seal(signer: Signer, addrs: Sequence[str], seq: int) -> bytes:
    """A signed record of the signer's own."""
    record = PeerRecord(peer_id=peer_id_of(signer.public_key), seq=seq)
    for addr in addrs:
        record.addresses.add(multiaddr=Multiaddr(addr).to_bytes())
    payload = record.SerializeToString(deterministic=True)
    envelope = Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signature=signer.sign(_unsigned(payload)))
    envelope.public_key.ParseFromString(signer.public_key)
    return envelope.SerializeToString(deterministic=True)


def unseal(data: bytes, can_dial: Callable[[Multiaddr], bool] = lambda _addr: True) -> Record:
    """What a signed record says. Raises RecordError, and nothing else, whatever the bytes."""
    envelope, record = Envelope(), PeerRecord()
    try:
        envelope.ParseFromString(data)
        record.ParseFromString(envelope.payload)
    except DecodeError as error:
        raise RecordError("form", f"expected a signed peer record: {error}") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise RecordError(
            "form", f"expected an envelope of type {PAYLOAD_TYPE.hex()}, got {envelope.payload_type[:8].hex()}"
        )
    if record.seq > MAX_SEQ:
        raise RecordError("form", f"expected a seq of at most 2^63-1, got {record.seq}")
    key = encode_key(envelope.public_key.Type, envelope.public_key.Data)
    try:
        author = author_of(key)
    except ValueError as error:
        raise RecordError("form", f"expected a signed peer record: {error}") from None
    if peer_id_of(key) != record.peer_id:
        named = base58.b58encode(record.peer_id[:64]).decode("ascii")
        raise RecordError("peer", f"expected a record signed by the peer that it names, {named}, got {author.peer}'s")
    signature = envelope.signature
    if len(signature) > MAX_SIGNATURE_BYTES or not author.verify(signature, _unsigned(envelope.payload)):
        raise RecordError("signature", f"expected a record with the signature of {author.peer}, got another")
    return Record(author.peer, record.seq, _dialable([info.multiaddr for info in record.addresses], author, can_dial))


def addrs_of(data: bytes) -> tuple[str, ...]:
    """The addresses in a record that was verified before, without /p2p/PEER; none if it is no record."""
    envelope, record = Envelope(), PeerRecord()
    try:
        envelope.ParseFromString(data)
        record.ParseFromString(envelope.payload)
    except DecodeError:
        return ()
    texts = (readable(info.multiaddr) for info in record.addresses[: 4 * MAX_ADDRS])
    return tuple(dict.fromkeys(text.partition("/p2p/")[0] for text in texts if text is not None))


def _dialable(raw: Sequence[bytes], author: Author, can_dial: Callable[[Multiaddr], bool]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    # more than four times as many as are kept aren't looked at
    for data in raw[: 4 * MAX_ADDRS]:
        text = readable(data)
        if text is None:
            continue
        addr, _, named = text.partition("/p2p/")
        if named not in ("", author.peer) or addr in found or reach_of(addr) is None:
            continue
        if can_dial(Multiaddr(addr)):
            found[addr] = None
            if len(found) == MAX_ADDRS:
                break
    return tuple(found)


@lru_cache(maxsize=REMEMBERED)
def readable(data: bytes) -> str | None:
    """A multiaddr's bytes as text; None if they are none, or too many. Its part before /p2p/ can be read back."""
    if not 0 < len(data) <= MAX_ADDR_BYTES:
        return None
    try:
        text = str(Multiaddr(data))
        Multiaddr(text.partition("/p2p/")[0])
        return text or None
    except Exception:  # the library takes any bytes, and each of its codecs fails in its own way
        return None


def _unsigned(payload: bytes) -> bytes:
    """What is signed."""
    return b"".join(encode_uvarint(len(part)) + part for part in (DOMAIN, PAYLOAD_TYPE, payload))
