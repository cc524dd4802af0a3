"""The handshake's codec and rules (docs/wire.md): an example for each rule, and then any bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.framing import encode_frame, encode_uvarint
from protocols.handshake.engine import Handshake, Refused, Role, Rules, show
from protocols.handshake.wire import MAX_FRAME, Hello, parse_client_version, parse_version

NETWORK = b"net"
OURS = Hello("vouch/0.1.0", NETWORK)
THEIRS = Hello("other/1.2.3", NETWORK)
RULES = Rules(OURS, {"vouch": (0, 2, 0), "old": (3, 0, 0)})

names = st.text("ABCXYZabcxyz0189._-", min_size=1, max_size=32)
numbers = st.integers(0, 999_999_999)
hellos = st.builds(
    lambda name, version, network_id: Hello(f"{name}/{'.'.join(map(str, version))}", network_id),
    names,
    st.tuples(numbers, numbers, numbers),
    st.binary(min_size=1, max_size=64),
)


def field(number: int, data: bytes) -> bytes:
    """One length-delimited protobuf field."""
    return encode_uvarint(number << 3 | 2) + encode_uvarint(len(data)) + data


def message(version: bytes | None = b"vouch/0.1.0", network_id: bytes | None = NETWORK) -> bytes:
    parts = [(1, version), (2, network_id)]
    return b"".join(field(number, data) for number, data in parts if data is not None)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def verdict(role: Role, chunks: list[bytes]) -> Hello | str | None:
    """The Hello, the reason of the refusal, or None if more is needed, after all `chunks`."""
    handshake, hello = Handshake(role, RULES), None
    for chunk in chunks:
        try:
            hello = handshake.receive(chunk)
        except Refused as refusal:
            return refusal.reason
    return handshake.peer_hello if hello is None else hello


# the codec


def test_the_bytes_are_those_of_the_page():
    assert OURS.encode() == message() == b"\x0a\x0bvouch/0.1.0\x12\x03net"
    assert Hello.decode(message()) == OURS


@given(hellos)
def test_hellos_round_trip_and_fit_their_frame(hello):
    assert len(hello.encode()) <= MAX_FRAME
    assert Hello.decode(hello.encode()) == hello


@given(st.binary(max_size=300) | st.builds(message, st.binary(max_size=60), st.binary(max_size=70)))
def test_any_bytes_are_a_valid_hello_or_a_protocol_error(data):
    try:
        hello = Hello.decode(data)
    except ProtocolError:
        return
    parse_client_version(hello.client_version)
    assert 1 <= len(hello.network_id) <= 64


@pytest.mark.parametrize(
    "version",
    [
        b"a/0.0.0",
        b"vouch/0.1.0",
        b"A.Z_a-z09/1.2.3",
        b"x" * 32 + b"/999999999.999999999.999999999",
        b"./10.20.30",
        b"a/1." + b"9" * 100 + b".0",
    ],
)
def test_client_versions_that_are_valid(version):
    assert Hello.decode(message(version)).client_version == version.decode()


@pytest.mark.parametrize(
    "version",
    [
        None,
        b"",
        b"vouch",
        b"/0.1.0",
        b"vouch/",
        b"vouch/1",
        b"vouch/1.2",
        b"vouch/1.2.3.4",
        b"vouch/1.2.3-rc1",
        b"vouch/01.2.3",
        b"vouch/1.02.3",
        b"vouch/1.2.00",
        b"vouch/-1.2.3",
        b"vouch/+1.2.3",
        b"vouch/1_0.2.3",
        b"vouch/ 1.2.3",
        b"vouch/1.2.3\n",
        b"\nvouch/1.2.3",
        b"vou ch/1.2.3",
        b"vouch//1.2.3",
        b"x" * 33 + b"/1.2.3",
        "vöuch/1.2.3".encode(),
        "vouch/\N{ARABIC-INDIC DIGIT ONE}.2.3".encode(),
        b"vouch/1.2.3\0",
        b"\xff/1.2.3",
    ],
)
def test_client_versions_that_are_none(version):
    with pytest.raises(ProtocolError, match="expected a Hello"):
        Hello.decode(message(version))


@pytest.mark.parametrize("network_id", [b"\0", b"\xff" * 64, b"net\n"])
def test_network_ids_are_any_bytes(network_id):
    assert Hello.decode(message(network_id=network_id)).network_id == network_id


@pytest.mark.parametrize("network_id", [None, b"", bytes(65)])
def test_network_ids_that_are_missing_empty_or_too_long(network_id):
    with pytest.raises(ProtocolError, match="network ID of 1 to 64 bytes"):
        Hello.decode(message(network_id=network_id))


def test_unknown_fields_are_ignored_wherever_they_stand():
    unknown = field(3, b"later") + b"\x20\x01" + b"\x2d\0\0\0\0" + b"\x31" + bytes(8)
    for data in (unknown + message(), message() + unknown, field(1, b"vouch/0.1.0") + unknown + field(2, NETWORK)):
        assert Hello.decode(data) == OURS


def test_the_order_of_fields_does_not_matter_and_the_last_of_two_counts():
    assert Hello.decode(field(2, NETWORK) + field(1, b"vouch/0.1.0")) == OURS
    assert Hello.decode(field(2, b"first") + message()) == OURS
    assert Hello.decode(field(1, b"no version") + message()) == OURS
    with pytest.raises(ProtocolError):
        Hello.decode(message() + field(2, b""))


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\x0bvouch", b"\x0a\xff\xff\xff\xff\x0f", b"\0", b"\xff" * 20, b"\x08\x01"]
)
def test_what_is_no_protobuf_is_no_hello(data):
    with pytest.raises(ProtocolError, match="expected a Hello"):
        Hello.decode(data)


def test_a_hello_of_ones_own_is_valid_or_a_value_error():
    for version, network_id in (("vouch", NETWORK), ("vouch/1.2.3", b""), ("vouch/1.2.3", bytes(65))):
        with pytest.raises(ValueError, match="expected"):
            Hello(version, network_id)


def test_versions_are_compared_as_numbers():
    assert parse_version("1.10.0") > parse_version("1.9.9")
    assert parse_client_version("vouch/1.10.0") == ("vouch", (1, 10, 0))
    for text in ("1.2", "1.2.3.4", "01.2.3", "1.2.3 ", "a"):
        with pytest.raises(ValueError, match="expected a version"):
            parse_version(text)


# the rules


def test_both_sides_admit_each_other():
    initiator, recipient = Handshake(Role.INITIATOR, Rules(THEIRS)), Handshake(Role.RECIPIENT, Rules(OURS))
    assert recipient.receive(initiator.hello()) == THEIRS
    assert initiator.receive(recipient.hello()) == OURS
    assert (initiator.peer_hello, recipient.peer_hello) == (OURS, THEIRS)


def test_a_recipient_shows_nothing_before_it_has_admitted():
    recipient = Handshake(Role.RECIPIENT, RULES)
    with pytest.raises(RuntimeError, match="only to a peer that it has admitted"):
        recipient.hello()
    with pytest.raises(Refused):
        recipient.receive(encode_frame(Hello("x/1.0.0", b"other").encode(), MAX_FRAME))
    with pytest.raises(RuntimeError):
        recipient.hello()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("network_id", [b"Net", b"net\0", b"ne", b"net ", b"nett"])
def test_the_network_id_must_be_equal_byte_for_byte(role, network_id):
    with pytest.raises(Refused, match="expected network ID 'net', the peer's is") as refused:
        Handshake(role, RULES).receive(encode_frame(message(network_id=network_id), MAX_FRAME))
    assert refused.value.reason == "network_id"


@pytest.mark.parametrize(
    ("version", "admitted"),
    [
        ("vouch/0.2.0", True),
        ("vouch/0.10.0", True),
        ("vouch/1.0.0", True),
        ("vouch/0.1.999999999", False),
        ("vouch/0.0.0", False),
        ("old/2.999.999", False),
        ("old/3.0.0", True),
        ("unlisted/0.0.0", True),
        ("Vouch/0.0.1", True),
    ],
)
def test_min_versions_hold_for_the_clients_that_they_name(version, admitted):
    for role in Role:
        frame = encode_frame(message(version.encode()), MAX_FRAME)
        if admitted:
            assert Handshake(role, RULES).receive(frame).client_version == version
        else:
            with pytest.raises(Refused, match=f"or newer, the peer is {version}") as refused:
                Handshake(role, RULES).receive(frame)
            assert refused.value.reason == "client_version"


def test_network_comes_before_version_in_what_a_refusal_says():
    frame = encode_frame(message(b"vouch/0.0.1", b"other"), MAX_FRAME)
    assert verdict(Role.RECIPIENT, [frame]) == "network_id"


def test_the_end_before_a_whole_hello_is_a_refusal():
    frame = encode_frame(THEIRS.encode(), MAX_FRAME)
    for length in range(len(frame)):
        assert verdict(Role.INITIATOR, [*([frame[:length]] if length else []), b""]) == "no_hello"


@pytest.mark.parametrize("more", [b"\0", b"\x80", encode_frame(THEIRS.encode(), MAX_FRAME), b"x"])
def test_more_than_one_hello_is_a_refusal(more):
    frame = encode_frame(THEIRS.encode(), MAX_FRAME)
    assert verdict(Role.RECIPIENT, [frame + more]) == "bad_hello"
    assert verdict(Role.RECIPIENT, [frame, more]) == "bad_hello"


def test_the_frames_bound_is_exact():
    filling = field(3, bytes(MAX_FRAME - len(THEIRS.encode()) - 3))
    exact = THEIRS.encode() + filling
    assert len(exact) == MAX_FRAME
    assert verdict(Role.RECIPIENT, [encode_frame(exact, MAX_FRAME)]) == THEIRS
    assert verdict(Role.RECIPIENT, [encode_uvarint(MAX_FRAME + 1)]) == "bad_hello"


def test_an_empty_frame_is_no_hello():
    assert verdict(Role.RECIPIENT, [b"\0"]) == "bad_hello"


near_hellos = st.one_of(
    st.binary(max_size=300),
    hellos.map(lambda hello: encode_frame(hello.encode(), MAX_FRAME)),
    st.builds(
        lambda version, network_id, more: encode_frame(message(version, network_id), 1000) + more,
        st.sampled_from([b"vouch/0.2.0", b"vouch/0.1.0", b"bad", b"x/1.1.1"]),
        st.sampled_from([NETWORK, b"other", b""]),
        st.binary(max_size=5),
    ),
)


@given(st.sampled_from(Role), near_hellos, st.lists(st.integers(0)))
def test_any_bytes_admit_refuse_or_wait_and_the_split_does_not_change_which(role, data, cuts):
    def kind(result):
        return "refused" if isinstance(result, str) else result

    whole = verdict(role, [data] if data else [])
    assert kind(verdict(role, cut(data, cuts))) == kind(whole)
    assert kind(verdict(role, [data[i : i + 1] for i in range(len(data))])) == kind(whole)
    if isinstance(whole, Hello):
        assert whole.network_id == NETWORK


def test_a_hello_with_a_bad_frame_behind_it_is_refused_however_it_is_split():
    data = encode_frame(THEIRS.encode(), MAX_FRAME) + b"\x80\x03"
    for chunks in ([data], [data[:-2], data[-2:]], [data[:-1], data[-1:]]):
        assert verdict(Role.RECIPIENT, chunks) == "bad_hello"


def test_refused_is_final():
    recipient = Handshake(Role.RECIPIENT, RULES)
    with pytest.raises(Refused):
        recipient.receive(encode_frame(message(network_id=b"other"), MAX_FRAME))
    with pytest.raises(Refused):
        recipient.receive(encode_frame(THEIRS.encode(), MAX_FRAME))


def test_network_ids_are_shown_as_text_or_hex():
    assert show(b"vouch-local") == "'vouch-local'"
    assert show(b"\x00\xff") == "0x00ff"
    assert show("é".encode()) == "0xc3a9"
    assert "\n" not in show(b"a\nb")
    assert "\x1b" not in show(b"\x1b[31m")
