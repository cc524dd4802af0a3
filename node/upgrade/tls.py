"""TLS 1.3 as libp2p speaks it: who the other side is, and everything after it encrypted. Rules only, no I/O.

    client                                              server
    ClientHello, ALPN: muxers, "libp2p"    -------->
                                           <--------    ServerHello, certificate, finished; ALPN: a muxer, or "libp2p"
    certificate, finished                  -------->

Both certificates are self-signed and prove an identity (`node.upgrade.certificate`). A muxer that ALPN names is agreed
on; "libp2p", or nothing, leaves it to multistream. (https://github.com/libp2p/specs/blob/master/tls/tls.md)

OpenSSL does it, by pyOpenSSL: the standard library's `ssl` can't ask for a certificate that no authority has signed
(docs/upstream.md). `Handshake` takes and gives bytes and ends in a `Session`, or in a ProtocolError; what `output`
gives then is for the peer too. Sockets and deadlines are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.peer.id import ID
from OpenSSL import SSL, crypto

from node.upgrade.certificate import make_credentials, peer_key
from protocols import ProtocolError

PROTOCOL_ID = "/tls/1.0.0"
NO_MUXER = "libp2p"
RECORD = 16384
# that a message of Noise's size grows by
OVERHEAD = 4 * 22
# what OpenSSL may want to send beside a message's records: an answer to a new key, tickets
SPARE = 4096
MAX_HANDSHAKE = 64 * 1024


class Local:
    """What this side brings to each handshake: a certificate of its own, and the muxers, best first. Made once."""

    def __init__(self, identity: KeyPair, muxers: Sequence[str]) -> None:
        credentials = make_credentials(identity)
        self.muxers = tuple(muxers)
        self._protocols = [name.encode() for name in (*muxers, NO_MUXER)]
        self.context = context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
        context.use_certificate(x509.load_pem_x509_certificate(credentials.certificate))
        context.use_privatekey(load_pem_private_key(credentials.key, None))  # type: ignore[arg-type]
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
        context.set_alpn_protos(self._protocols)
        context.set_alpn_select_callback(self._choose)

    def _choose(self, _connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for name in self._protocols:
            if name in offered:
                return name
        raise ProtocolError(f"expected ALPN to offer {NO_MUXER!r} or a muxer of ours, got {offered[:8]}")


class Session:
    """What a handshake ends in. `remote_key` is the peer's identity, proven; `muxer` what was agreed on, if it was."""

    def __init__(self, connection: SSL.Connection, remote_key: PublicKey, muxer: str | None) -> None:
        self.remote_key = remote_key
        self.muxer = muxer
        self.ended = False  # the peer said that it sends no more
        self._connection = connection

    def seal(self, messages: Sequence[bytes | memoryview], into: memoryview) -> int:
        """Writes the messages as records, with `SPARE` and 22 bytes a record of room; the bytes written."""
        at = 0
        try:
            for message in messages:
                self._connection.sendall(message)
                at += _output_into(self._connection, into[at:])
        except SSL.Error as error:
            raise ProtocolError(f"expected to send over TLS: {_text(error)}") from None
        return at

    def open(self, data: memoryview) -> tuple[list[bytes], int]:
        """The plaintexts that `data` completes, at most a record each, and its length: all of it is taken."""
        messages: list[bytes] = []
        try:
            if data:
                self._connection.bio_write(data)
            while True:
                messages.append(self._connection.recv(RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            raise ProtocolError(f"expected records of the peer's own over TLS, got others: {_text(error)}") from None
        return messages, len(data)

    def end(self) -> bytes:
        """What tells the peer that nothing more comes."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""  # it is over already
        return _output(self._connection)


class Handshake:
    """One side's handshake: hand on `output`, then `receive` what comes, in turn, until `session` is there.

    With `wanted` the other side must be that peer; it isn't told who we are otherwise.
    """

    def __init__(self, *, initiator: bool, local: Local, wanted: ID | None = None) -> None:
        self.session: Session | None = None
        self._local = local
        self._wanted = wanted
        self._initiator = initiator
        self._remote: PublicKey | None = None
        self._fault: ProtocolError | None = None
        self._received = 0
        self._connection = connection = SSL.Connection(local.context, None)
        connection.set_app_data(self)
        if initiator:
            connection.set_connect_state()
            self._step()
        else:
            connection.set_accept_state()

    def output(self) -> bytes:
        """What is to be sent now."""
        return _output(self._connection)

    def receive(self, data: bytes) -> None:
        """Takes what the peer has sent. Raises ProtocolError."""
        if self._received > MAX_HANDSHAKE:
            raise ProtocolError(f"expected a TLS handshake of at most {MAX_HANDSHAKE} bytes")
        self._received += len(data)
        self._connection.bio_write(data)
        self._step()

    def _step(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            self._connection.set_app_data(None)
            raise self._fault or ProtocolError(f"expected a TLS handshake: {_text(error)}") from None
        except ProtocolError:
            self._connection.set_app_data(None)
            raise
        self._connection.set_app_data(None)
        others = len(self._connection.get_peer_cert_chain() or ()) - self._initiator  # a server doesn't see the first
        if self._remote is None or others > 0:
            raise ProtocolError(f"expected one certificate, got {others + 1 if self._remote else 'none'}")
        agreed = self._connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        self.session = Session(self._connection, self._remote, agreed if agreed in self._local.muxers else None)

    def check(self, certificate: bytes) -> bool:
        """Whether that is whom we want to talk with, and can show it; called while the handshake runs."""
        if self._remote is None and self._fault is None:
            try:
                remote = peer_key([certificate])
                if self._wanted not in (None, ID.from_pubkey(remote)):
                    raise ProtocolError(f"expected peer {self._wanted}, got {ID.from_pubkey(remote)}")
                self._remote = remote
            except ProtocolError as error:
                self._fault = error
        return self._fault is None


def _verify(connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int) -> bool:
    """OpenSSL asks once for each thing that it finds wrong, if only that no authority has signed the certificate."""
    handshake = connection.get_app_data()
    if depth or not isinstance(handshake, Handshake):
        return False  # a chain that leads elsewhere
    return handshake.check(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


def _output(connection: SSL.Connection) -> bytes:
    parts: list[bytes] = []
    try:
        while True:
            parts.append(connection.bio_read(MAX_HANDSHAKE))
    except SSL.WantReadError:
        return b"".join(parts)


def _output_into(connection: SSL.Connection, into: memoryview) -> int:
    at = 0
    try:
        while at < len(into):
            part = connection.bio_read(len(into) - at)
            into[at : at + len(part)] = part
            at += len(part)
    except SSL.WantReadError:
        pass
    return at


def _text(error: SSL.Error) -> str:
    """The reasons that OpenSSL gives."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(reason[-1]) for reason in reasons) or type(error).__name__
