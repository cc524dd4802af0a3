"""TLS's rules: two ends in memory, certificates that prove nothing, and bytes that were spoiled."""

from __future__ import annotations

import datetime
import ssl
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.peer.id import ID
from OpenSSL import SSL

from node.identity import Identity
from node.upgrade.certificate import Credentials, make_credentials
from node.upgrade.noise import MAX_PLAINTEXT
from node.upgrade.tls import OVERHEAD, SPARE, Handshake, Local, Session
from protocols import ProtocolError

YAMUX = "/yamux/1.0.0"
ALICE, BOB, EVE = (Identity.from_secret(bytes([number]) * 32).key_pair() for number in range(3))
LOCALS = {pair.public_key.serialize(): Local(pair, [YAMUX]) for pair in (ALICE, BOB, EVE)}


def local(pair) -> Local:
    return LOCALS[pair.public_key.serialize()]


def shake(client: Handshake, server: Handshake) -> None:
    """Carries bytes until both are done. Raises what the first side raises, when the other has heard of it."""
    for _ in range(10):
        if client.session and server.session:
            return
        for one, other in ((client, server), (server, client)):
            data = one.output()
            if data:
                try:
                    other.receive(data)
                except ProtocolError:
                    one.receive(other.output())
                    raise
    raise AssertionError("the handshake doesn't end")


def connected(muxers=(YAMUX,)) -> tuple[Session, Session]:
    client = Handshake(initiator=True, local=Local(ALICE, muxers), wanted=ID.from_pubkey(BOB.public_key))
    server = Handshake(initiator=False, local=local(BOB))
    shake(client, server)
    assert client.session
    assert server.session
    # what the server says at the end of the handshake, tickets
    client.session.open(memoryview(server.output()))
    return client.session, server.session


def sealed(session: Session, *messages: bytes) -> bytes:
    buffer = memoryview(bytearray(sum(map(len, messages)) + len(messages) * OVERHEAD + SPARE))
    return bytes(buffer[: session.seal(messages, buffer)])


def opened(session: Session, data: bytes) -> bytes:
    messages, used = session.open(memoryview(data))
    assert used == len(data)
    return b"".join(messages)


def test_both_know_whom_they_talk_with_and_what_muxer_they_use():
    client, server = connected()
    assert client.remote_key == BOB.public_key
    assert server.remote_key == ALICE.public_key
    assert client.muxer == server.muxer == YAMUX


def test_without_a_muxer_in_common_multistream_decides():
    client, server = connected(muxers=["/other/1.0.0"])
    assert client.muxer is server.muxer is None


def test_what_is_sealed_is_opened_in_any_pieces():
    client, server = connected()
    data = bytes(range(256)) * 255
    assert len(data) <= MAX_PLAINTEXT
    for one, other in ((client, server), (server, client)):
        wire = sealed(one, data, b"x", data)
        assert len(wire) <= 2 * len(data) + 1 + 3 * OVERHEAD
        got = b"".join(opened(other, wire[at : at + 1777]) for at in range(0, len(wire), 1777))
        assert got == data + b"x" + data


def test_the_end_is_told():
    client, server = connected()
    assert opened(server, sealed(client, b"last") + client.end()) == b"last"
    assert server.ended
    assert not client.ended
    assert client.end() == b""


def test_another_peer_than_the_wanted_one_is_refused_and_not_told_who_we_are():
    client = Handshake(initiator=True, local=local(ALICE), wanted=ID.from_pubkey(EVE.public_key))
    server = Handshake(initiator=False, local=local(BOB))
    server.receive(client.output())
    with pytest.raises(ProtocolError, match=f"expected peer {ID.from_pubkey(EVE.public_key)}, got"):
        client.receive(server.output())
    with pytest.raises(ProtocolError, match="alert"):
        server.receive(client.output())
    assert server._remote is None


class Foreign:
    """Stands where a `Local` would, with another certificate, or none, or other rules."""

    muxers = (YAMUX,)

    def __init__(self, credentials=None, *, alpn=(b"libp2p",), version=SSL.TLS1_3_VERSION):
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_max_proto_version(version)
        self.context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        if alpn:
            self.context.set_alpn_protos(list(alpn))
        if credentials:
            self.context.use_certificate(x509.load_pem_x509_certificate(credentials.certificate))
            self.context.use_privatekey(serialization.load_pem_private_key(credentials.key, None))
        self.connection = SSL.Connection(self.context, None)


def refused(foreign: Foreign, *, foreign_listens: bool) -> str:
    """Why our side refuses the foreign one."""
    ours = Handshake(initiator=foreign_listens, local=local(BOB))
    theirs = foreign.connection
    theirs.set_accept_state() if foreign_listens else theirs.set_connect_state()
    for _ in range(5):
        data = ours.output()
        if data:
            theirs.bio_write(data)
        with suppress(SSL.WantReadError):
            theirs.do_handshake()
        try:
            ours.receive(theirs.bio_read(1 << 16))
        except ProtocolError as error:
            return str(error)
    raise AssertionError("nothing was refused")


def plain_certificate():
    """One without libp2p's extension."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(1))
    pem = serialization.Encoding.PEM
    return Credentials(
        builder.sign(key, hashes.SHA256()).public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.mark.parametrize("listens", [True, False], ids=["server", "client"])
def test_certificate_that_proves_nothing_is_refused(listens):
    assert "expected the extension" in refused(Foreign(plain_certificate()), foreign_listens=listens)


def test_client_without_a_certificate_is_refused():
    assert "peer did not return a certificate" in refused(Foreign(), foreign_listens=False)


def test_old_tls_is_refused():
    old = Foreign(make_credentials(ALICE), version=SSL.TLS1_2_VERSION)
    assert "unsupported protocol" in refused(old, foreign_listens=False)


def test_other_protocols_than_libp2p_are_refused():
    assert "ALPN" in refused(Foreign(make_credentials(ALICE), alpn=[b"h2"]), foreign_listens=False)


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=400))
def test_any_first_bytes_are_a_handshake_or_one_error(data):
    for initiator in (True, False):
        handshake = Handshake(initiator=initiator, local=local(BOB))
        handshake.output()
        try:
            handshake.receive(data)
        except ProtocolError:
            continue
        assert handshake.session is None


@settings(max_examples=150)
@given(st.integers(0, 5000), st.integers(1, 255), st.booleans())
def test_spoiled_handshakes_and_records_are_one_error(at, flip, server_spoils):
    client = Handshake(initiator=True, local=local(ALICE), wanted=ID.from_pubkey(BOB.public_key))
    server = Handshake(initiator=False, local=local(BOB))
    spoiler, victim = (server, client) if server_spoils else (client, server)

    def spoil(data: bytes) -> bytes:
        nonlocal at
        if 0 <= at < len(data):
            data = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        at -= len(data)
        return data

    try:
        for _ in range(4):
            for one, other in ((client, server), (server, client)):
                data = one.output()
                if data:
                    other.receive(spoil(data) if one is spoiler else data)
        if spoiler.session is None or victim.session is None:
            return  # a length was spoiled: more is waited for, until the deadline
        messages, _ = victim.session.open(memoryview(spoil(sealed(spoiler.session, bytes(5000)))))
        assert set(b"".join(messages)) <= {0}
    except ProtocolError:
        pass


def test_handshake_without_an_end_is_bounded():
    handshake = Handshake(initiator=False, local=local(BOB))
    # a handshake message of 16 MiB, piece by piece
    with pytest.raises(ProtocolError):
        handshake.receive(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380))


def test_the_standard_library_takes_no_certificate_without_an_authority(tmp_path):
    """Why pyOpenSSL is here: `ssl` either asks for no certificate, or refuses one that proves only a peer ID."""
    credentials = make_credentials(ALICE)
    both = tmp_path / "both.pem"
    both.write_bytes(credentials.certificate + credentials.key)
    for mode in (ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL):
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode, server.verify_mode = False, ssl.CERT_NONE, mode
        for context in (server, client):
            context.load_cert_chain(both)
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
        for end in ends:
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
        ends[0].do_handshake()
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            ends[1].do_handshake()
