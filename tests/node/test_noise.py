"""Noise: the rules without I/O, any bytes, and against py-libp2p's own (which stands on another library)."""

from __future__ import annotations

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.rsa import create_new_key_pair as create_rsa
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as StockNoise

from node.identity import Identity
from node.upgrade.noise import LAST_NONCE, MAX_PLAINTEXT, Cipher, Handshake, Local, Payload, Session
from node.upgrade.secure import NoiseTransport
from protocols import ProtocolError
from tests.memnet import MemNet

ALICE, BOB = (Identity.from_secret(bytes([number]) * 32).key_pair() for number in (1, 2))
YAMUX = "/yamux/1.0.0"


def local(key_pair, muxers=(YAMUX,)) -> Local:
    return Local.of(X25519PrivateKey.generate(), key_pair.private_key, muxers)


def shake(alice: Handshake, bob: Handshake) -> tuple[Session, Session]:
    bob.read(alice.write())
    alice.read(bob.write())
    bob.read(alice.write())
    assert alice.session is not None
    assert bob.session is not None
    return alice.session, bob.session


def sessions() -> tuple[Session, Session]:
    return shake(Handshake(initiator=True, local=local(ALICE)), Handshake(initiator=False, local=local(BOB)))


def test_both_sides_learn_who_the_other_is_and_what_it_speaks():
    ours, theirs = sessions()
    assert ours.remote_key == BOB.public_key
    assert theirs.remote_key == ALICE.public_key
    assert ours.muxers == theirs.muxers == (YAMUX,)


@pytest.mark.parametrize("create", [create_secp256k1, lambda: create_rsa(2048)], ids=["secp256k1", "RSA"])
def test_identities_of_other_kinds_are_proven_too(create):
    keys = create()
    ours, _ = shake(Handshake(initiator=True, local=local(ALICE)), Handshake(initiator=False, local=local(keys)))
    assert ours.remote_key.serialize() == keys.public_key.serialize()


@given(st.lists(st.binary(max_size=3000), max_size=5), st.lists(st.integers(1, 4000), max_size=20))
def test_what_is_sealed_is_opened_in_any_split(texts, cuts):
    ours, theirs = PAIR()
    stream, opened = seal(ours, *texts), []
    rest = b""
    for cut in [*cuts, len(stream)]:
        rest += stream[:cut]
        stream = stream[cut:]
        messages, used = theirs.open(memoryview(rest))
        opened += messages
        rest = rest[used:]
    assert opened == texts
    assert not rest


def seal(session: Session, *texts: bytes) -> bytes:
    buffer = memoryview(bytearray(sum(len(text) + 18 for text in texts)))
    return bytes(buffer[: session.seal(texts, buffer)])


def PAIR() -> tuple[Session, Session]:
    """Two sessions without the cost of a handshake."""
    one, two = b"\1" * 32, b"\2" * 32
    return (
        Session(Cipher(one), Cipher(two), BOB.public_key, ()),
        Session(Cipher(two), Cipher(one), ALICE.public_key, ()),
    )


def test_the_largest_message_fills_its_length_field():
    ours, theirs = PAIR()
    text = bytes(range(256)) * 256
    sealed = seal(ours, text[:MAX_PLAINTEXT])
    assert len(sealed) == 2 + 65535
    assert theirs.open(memoryview(sealed)) == ([text[:MAX_PLAINTEXT]], len(sealed))


def test_a_changed_repeated_or_reordered_message_is_refused():
    for spoil in (
        lambda first, second: bytes([first[0], first[1], first[2] ^ 1]) + first[3:],
        lambda first, second: first + first,
        lambda first, second: second,
    ):
        ours, theirs = PAIR()
        first, second = seal(ours, b"first"), seal(ours, b"second")
        with pytest.raises(ProtocolError, match="doesn't decrypt"):
            theirs.open(memoryview(spoil(first, second)))


def test_the_last_nonce_is_not_used():
    cipher = Cipher(bytes(32), LAST_NONCE)
    cipher.seal(b"the last one")
    with pytest.raises(ProtocolError, match="as many as there are nonces"):
        cipher.seal(b"one too many")


@pytest.mark.parametrize("step", [1, 2, 3])
@given(data=st.data())
def test_any_bytes_for_a_handshake_message_are_an_error_and_nothing_else(step, data):
    alice, bob = Handshake(initiator=True, local=LOCALS[0]), Handshake(initiator=False, local=LOCALS[1])
    sides = [bob, alice, bob]
    message = alice.write()
    for number in range(1, step):
        sides[number - 1].read(message)
        message = sides[number - 1].write()
    spoiled = data.draw(
        st.one_of(
            st.binary(max_size=300),
            st.integers(0, len(message) - 1).map(
                lambda at: message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
            ),
            st.integers(0, len(message) - 1).map(lambda at: message[:at]),
        )
    )
    try:
        sides[step - 1].read(spoiled)
        if step == 1:  # nothing is authenticated yet; the next message is
            alice.read(bob.write())
    except ProtocolError:
        return
    # the first message has no secret: any key is one, and the peers don't understand each other afterwards
    pytest.fail("a spoiled message was taken")


LOCALS = local(ALICE), local(BOB)


def test_an_identity_that_did_not_sign_the_static_key_is_refused():
    honest = local(BOB)
    stolen = Local(X25519PrivateKey.generate(), b"", honest.payload)
    stolen = Local(stolen.static, stolen.static.public_key().public_bytes_raw(), honest.payload)
    with pytest.raises(ProtocolError, match="signature"):
        shake(Handshake(initiator=True, local=local(ALICE)), Handshake(initiator=False, local=stolen))


@pytest.mark.parametrize("payload", [b"", b"\xff\xff", Payload(identity_key=b"\x08\x07\x12\x00").SerializeToString()])
def test_a_payload_that_proves_nobody_is_refused(payload):
    static = X25519PrivateKey.generate()
    nobody = Local(static, static.public_key().public_bytes_raw(), payload)
    with pytest.raises(ProtocolError, match="expected"):
        shake(Handshake(initiator=True, local=local(ALICE)), Handshake(initiator=False, local=nobody))


def test_a_key_that_leads_to_no_secret_is_refused():
    bob = Handshake(initiator=False, local=local(BOB))
    bob.read(bytes(32))
    with pytest.raises(ProtocolError, match="shared secret"):
        bob.write()


def test_another_prologue_is_another_conversation():
    same = (
        Handshake(initiator=True, local=LOCALS[0], prologue=b"net"),
        Handshake(initiator=False, local=LOCALS[1], prologue=b"net"),
    )
    shake(*same)
    with pytest.raises(ProtocolError):
        shake(
            Handshake(initiator=True, local=LOCALS[0], prologue=b"net"),
            Handshake(initiator=False, local=LOCALS[1], prologue=b"other"),
        )


# on connections


async def secured(net: MemNet, outbound, inbound, wanted: ID):
    """Both ends of a connection, secured by the two transports."""
    near, far = (
        RawConnection(TrioTCPStream(end), initiator)
        for end, initiator in zip(net.pipe("10.0.0.1", "10.0.0.2"), (True, False), strict=True)
    )
    results = {}

    async def dial() -> None:
        results["near"] = await outbound.secure_outbound(near, wanted)

    async def answer() -> None:
        results["far"] = await inbound.secure_inbound(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(answer)
    return results["near"], results["far"]


def ours(keys, muxers=(YAMUX,)) -> NoiseTransport:
    return NoiseTransport(keys, muxers)


def stock(keys) -> StockNoise:
    return StockNoise(keys, noise_privkey=create_x25519().private_key)


@pytest.mark.parametrize(
    ("outbound", "inbound"),
    [(ours, ours), (ours, stock), (stock, ours)],
    ids=["ours", "ours to stock", "stock to ours"],
)
async def test_connections_with_py_libp2p_and_each_other(outbound, inbound, autojump_clock):
    async with MemNet() as net:
        near, far = await secured(net, outbound(ALICE), inbound(BOB), ID.from_pubkey(BOB.public_key))
        assert near.get_remote_peer() == ID.from_pubkey(BOB.public_key)
        assert far.get_remote_peer() == ID.from_pubkey(ALICE.public_key)
        for here, there in ((near, far), (far, near)):
            text = bytes(range(256)) * 700
            received = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.write, text)
                while len(received) < len(text):
                    received += await there.read(min(1000, len(text) - len(received)))  # stock waits for all of it
            assert received == text
        await near.close()
        await far.close()


async def test_the_muxer_is_agreed_on_in_the_handshake_in_the_initiators_order(autojump_clock):
    async with MemNet() as net:
        wanted = ID.from_pubkey(BOB.public_key)
        near, far = await secured(net, ours(ALICE, ["/a", "/b", "/c"]), ours(BOB, ["/c", "/b"]), wanted)
        assert near.early_muxer == far.early_muxer == "/b"
        near, far = await secured(net, ours(ALICE, ["/a"]), ours(BOB, ["/b"]), wanted)
        assert near.early_muxer is far.early_muxer is None


async def test_another_peer_than_the_one_wanted_learns_nothing_of_us(autojump_clock):
    async with MemNet() as net:
        end, far = net.pipe("10.0.0.1", "10.0.0.2")
        carol = Identity.generate().key_pair()
        near = RawConnection(TrioTCPStream(end), True)

        async def answer() -> None:
            with pytest.raises(Exception, match="ended"):
                await ours(BOB).secure_inbound(RawConnection(TrioTCPStream(far), False))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(ProtocolError, match="expected peer"):
                await ours(ALICE).secure_outbound(near, ID.from_pubkey(carol.public_key))
            await near.close()
