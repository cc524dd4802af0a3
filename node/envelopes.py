"""Signed peer records in the two forms that rendezvous meets: who signed, and which addresses.

envelope = public key, payload type, payload (PeerRecord), signature over domain, payload type and payload

standard   "libp2p-peer-record", 0x0301                                  RFC 0003 of libp2p's specification
legacy     "libp2p-routing-state", "/libp2p/routing-state-record"        rust-libp2p, which reads no other there
"""

from __future__ import annotations

from libp2p.crypto.keys import KeyPair
from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
from libp2p.peer.id import ID
from libp2p.peer.pb.peer_record_pb2 import PeerRecord as PeerRecordMessage
from libp2p.peer.peer_record import PEER_RECORD_ENVELOPE_PAYLOAD_TYPE, PeerRecord
from multiaddr import Multiaddr

from protocols.rendezvous.rules import Form, SignedRecord

MAX_ADDRESSES = 16
_DOMAINS = {Form.STANDARD: "libp2p-peer-record", Form.LEGACY: "libp2p-routing-state"}
_TYPES = {Form.STANDARD: PEER_RECORD_ENVELOPE_PAYLOAD_TYPE, Form.LEGACY: b"/libp2p/routing-state-record"}


def open_record(data: bytes) -> SignedRecord:
    """Whose record it is, verified; its first 16 readable addresses. Raises ValueError."""
    try:
        envelope = unmarshal_envelope(data)
        form = next((form for form, kind in _TYPES.items() if kind == envelope.payload_type), None)
        if form is None:
            raise ValueError(f"a payload of type {envelope.payload_type[:32]!r}")
        envelope.validate(_DOMAINS[form])
        message = PeerRecordMessage()
        message.ParseFromString(envelope.raw_payload)
        signer = ID.from_pubkey(envelope.public_key)
    except Exception as error:  # py-libp2p on a stranger's bytes: whatever it raises, the record is bad
        raise ValueError(f"expected a signed peer record, got {error}") from None
    if message.peer_id != signer.to_bytes():
        raise ValueError(f"expected a record of {signer}, who signed it, got that of another peer")
    addrs: list[str] = []
    for info in message.addresses:
        if len(addrs) == MAX_ADDRESSES:
            break
        if (text := _text(info.multiaddr)) and text not in addrs:
            addrs.append(text)
    return SignedRecord(str(signer), message.seq, tuple(addrs), form)


def seal_record(key_pair: KeyPair, addrs: list[Multiaddr], seq: int, form: Form) -> bytes:
    """Our record of these addresses, without /p2p/PEERID."""
    payload = PeerRecord(ID.from_pubkey(key_pair.public_key), addrs, seq).marshal_record()
    signature = key_pair.private_key.sign(make_unsigned(_DOMAINS[form], _TYPES[form], payload))
    return Envelope(key_pair.public_key, _TYPES[form], payload, signature).marshal_envelope()


def _text(data: bytes) -> str:
    try:
        return str(Multiaddr(data))
    except Exception:  # each codec fails in its own way
        return ""
