"""Who may ask the HTTP API: the rules, by examples and for any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.http.guard import Asked, Guard, Places, Rates, Refusal
from node.hostport import Address, parse_address

TOKEN = "t" * 43
PORT = 4780
CODES = {"wrong_host", "wrong_origin", "no_token", "too_large", "bad_header"}


def guard(**more):
    return Guard(TOKEN, port=PORT, **more)


def asked(access="read", **headers):
    headers = {"host": f"localhost:{PORT}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return Asked({name: (text,) for name, text in headers.items() if text is not None}, access)


def check(rules, request):
    """The first rule that it breaks, as the app asks for them."""
    return rules.foreign(request) or rules.unfit(request)


def code(refusal):
    return refusal.code if refusal else None


@pytest.mark.parametrize(
    "host",
    [
        f"localhost:{PORT}",
        f"127.0.0.1:{PORT}",
        f"[::1]:{PORT}",
        f"LOCALHOST:{PORT}",
        f"localhost.:{PORT}",
        "localhost:14780",  # a forwarded port
        "localhost",
        f"node.example:{PORT}",
        f"Node.Example:{PORT}",
        f"10.1.2.3:{PORT}",
    ],
)
def test_our_hosts(host):
    assert check(guard(names=("node.example", "10.1.2.3")), asked(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        f"evil.example:{PORT}",
        "node.example",  # at another port
        f"localhost.evil.example:{PORT}",
        f"evil.example@localhost:{PORT}",
        f"localhost:{PORT}/path",
        f"localhost:{PORT}?x",
        "localhost:99999",
        "localhost:x",
        "[::1",
        f"10.9.9.9:{PORT}",
        f" localhost:{PORT}",
        f"local\thost:{PORT}",
    ],
)
def test_hosts_of_others(host):
    refusal = check(guard(names=("node.example",)), asked(host=host))
    assert (refusal.status, refusal.code) == (403, "wrong_host")
    assert "expected a Host" in refusal.message


def test_any_address_is_ours_where_all_are_listened_on():
    rules = guard(any_ip=True)
    assert check(rules, asked(host=f"10.9.9.9:{PORT}")) is None
    assert check(rules, asked(host=f"[2001:db8::1]:{PORT}")) is None
    assert code(check(rules, asked(host=f"evil.example:{PORT}"))) == "wrong_host"


def test_a_header_that_comes_twice():
    twice = Asked({"host": (f"localhost:{PORT}", "evil.example")}, "read")
    assert code(check(guard(), twice)) == "bad_header"


@pytest.mark.parametrize("access", ["open", "read", "change"])
@pytest.mark.parametrize(
    ("origin", "fits"),
    [
        (f"http://localhost:{PORT}", True),
        (f"https://localhost:{PORT}", False),
        ("http://localhost:3000", False),
        ("http://evil.example", False),
        (f"http://127.0.0.1:{PORT}", False),  # another origin than the Host's
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_origins(access, origin, fits):
    refusal = check(guard(), asked(access, origin=origin, authorization=f"Bearer {TOKEN}"))
    assert code(refusal) == (None if fits else "wrong_origin")


def test_pages_of_other_sites():
    assert code(check(guard(), asked("read", sec_fetch_site="cross-site"))) == "wrong_origin"
    assert check(guard(), asked("open", sec_fetch_site="cross-site")) is None  # a link to the dashboard
    assert check(guard(), asked("read", sec_fetch_site="same-origin")) is None


@pytest.mark.parametrize(
    ("given_token", "fits"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"Bearer  {TOKEN} ", True),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        ("Bearer", False),
        ("Bearer ", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer \udcff", False),
        (None, False),
    ],
)
def test_tokens(given_token, fits):
    refusal = check(guard(), asked("change", authorization=given_token))
    assert code(refusal) == (None if fits else "no_token")
    if refusal:
        assert refusal.status == 401
        assert refusal.headers["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN not in refusal.message


def test_what_needs_the_token():
    assert check(guard(), asked("read")) is None
    assert code(check(guard(always=True), asked("read"))) == "no_token"
    assert check(guard(always=True), asked("open")) is None


def test_the_token_comes_before_the_size_and_the_size_before_the_body():
    rules = guard(max_body=100)
    assert code(check(rules, asked("change", content_length="101"))) == "no_token"
    refusal = check(rules, asked("change", content_length="101", authorization=f"Bearer {TOKEN}"))
    assert (refusal.status, refusal.code) == (413, "too_large")
    assert check(rules, asked("change", content_length="100", authorization=f"Bearer {TOKEN}")) is None
    for bad in ("-1", "1e3", "", "\u0663", "9" * 5000):
        assert check(rules, asked("read", content_length=bad)).status in (400, 413)


text = st.binary(max_size=60).map(lambda data: data.decode("latin-1"))  # as headers come
headers = st.dictionaries(
    st.sampled_from(["host", "origin", "authorization", "content-length", "sec-fetch-site"]),
    st.lists(text | st.sampled_from([f"localhost:{PORT}", f"http://localhost:{PORT}", "5"]), max_size=3).map(tuple),
)


@given(headers=headers, access=st.sampled_from(["open", "read", "change"]), always=st.booleans())
def test_any_headers_are_answered_and_none_gets_through_without_the_token(headers, access, always):
    rules = guard(always=always, names=("node.example",))
    refusal = check(rules, Asked(headers, access))
    if refusal is None:
        assert access == "open" or (access == "read" and not always)
        return
    assert refusal.code in CODES
    assert 400 <= refusal.status < 500
    assert refusal.message.isascii()


@given(origin=text)
def test_no_other_origin_gets_through(origin):
    refusal = check(guard(), asked("change", origin=origin, authorization=f"Bearer {TOKEN}"))
    assert code(refusal) == "wrong_origin"


# how often, and how many


def test_rates():
    rates = Rates(10.0)
    assert [code(rates.take("a", 0.0)) for _ in range(21)] == [None] * 20 + ["too_many_requests"]
    refusal = rates.take("a", 0.05)
    assert refusal.status == 429
    assert int(refusal.headers["Retry-After"]) >= 1
    assert rates.take("b", 0.05) is None  # another's are its own
    assert rates.take("a", 0.2) is None
    assert rates.take("a", 1000.0) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 5)), max_size=200), st.floats(0.5, 50))
def test_nobody_gets_more_than_the_rate(takes, rate):
    rates, now = Rates(rate, most=3), 0.0
    taken, began = {}, {}
    for address, pause in takes:
        now += pause
        began.setdefault(address, now)
        taken[address] = taken.get(address, 0) + (rates.take(address, now) is None)
        assert len(rates) <= 3
    if len(taken) <= 3:  # nobody was forgotten
        for address, count in taken.items():
            assert count <= max(1.0, 2 * rate) + rate * (now - began[address]) + 1e-6


def test_places():
    places = Places(4, "max_api_listeners")
    assert [code(places.take("10.0.0.1")) for _ in range(3)] == [None, None, "too_many"]
    assert [code(places.take("127.0.0.1")) for _ in range(3)] == [None, None, "too_many"]
    assert (places.used, places.refused) == (4, 2)
    places.leave("10.0.0.1")
    assert places.take("::1") is None
    assert "max_api_listeners" in places.take("::1").message


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["127.0.0.1", "10.0.0.1", "10.0.0.2"])), max_size=100))
def test_places_leak_nothing(steps):
    places, held = Places(5, "x"), []
    for takes, address in steps:
        if takes:
            if not isinstance(places.take(address), Refusal):
                held.append(address)
        elif held:
            places.leave(held.pop(0))
        assert places.used == len(held) <= 5
    for address in held:
        places.leave(address)
    assert places.used == 0


# where it listens


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:4780", Address("127.0.0.1", 4780), True),
        ("localhost:0", Address("127.0.0.1", 0), True),
        ("[::1]:4780", Address("::1", 4780), True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), False),
        ("[::]:80", Address("::", 80), False),
        ("192.0.2.1:65535", Address("192.0.2.1", 65535), False),
    ],
)
def test_addresses(text, address, loopback):
    parsed = parse_address(text)
    assert parsed == address
    assert parsed.loopback is loopback
    assert parse_address(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", "on", "4780", ":4780", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:4780"),
        *("[::1]", "node.example:80", "127.0.0.1:-1", "127.0.0.1:8 0", "127.0.0.1:\u0663"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


@given(text)
def test_any_text_is_an_address_or_one_error(text):
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert address is None or 0 <= address.port <= 65535
