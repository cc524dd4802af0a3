"""Which log lines are counted instead of printed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from node.repeats import Repeats, told_apart, worth_a_warning

WINDOW = 10.0


def line(event="dial_failed", level="debug", **fields):
    return {"event": event, "level": level, "logger": "vouch.dialer", **fields}


def test_the_first_is_printed_and_the_others_are_counted():
    repeats = Repeats(WINDOW)
    assert repeats.line(line(peer="a", retry_in=1.0), 0.0) == (True, [])
    assert repeats.line(line(peer="a", retry_in=2.0), 1.0) == (False, [])
    assert repeats.line(line(peer="b"), 1.0) == (True, [])
    assert repeats.line(line(peer="a"), 4.0) == (False, [])
    assert repeats.next_due == WINDOW
    assert repeats.due(9.9) == []
    (told,) = repeats.due(WINDOW)
    assert told == {
        **line("repeated", peer="a"),
        "what": "dial_failed",
        "count": 2,
        "seconds": 4.0,
    }
    assert repeats.next_due is None
    assert repeats.line(line(peer="a"), 11.0) == (True, [])
    assert repeats.collapsed == 2


def test_at_the_end_what_was_counted_is_told():
    repeats = Repeats(WINDOW)
    for _ in range(3):
        repeats.line(line(peer="a"), 0.0)
    assert [row["count"] for row in repeats.close()] == [2]
    assert len(repeats) == 0


def test_what_tells_a_state_is_never_collapsed():
    repeats = Repeats(WINDOW)
    for event in ("admitted", "disconnected") * 3:
        assert repeats.line(line(event, peer="a"), 0.0) == (True, [])


def test_strangers_are_told_apart_by_their_host():
    repeats = Repeats(WINDOW)
    for number in range(1000):
        fields = {"direction": "inbound", "reason": "network_id", "detail": f"got {number}", "peer": f"peer {number}"}
        printed, _ = repeats.line(line("refused", addr=f"/ip4/192.0.2.1/tcp/{number}", **fields), 0.0)
        assert printed == (number == 0)
    assert repeats.line(line("refused", addr="/ip4/192.0.2.2/tcp/1", **fields), 0.0)[0]
    (told, _) = repeats.line(line("other"), 0.0)[1] + repeats.close() + [None]
    assert (told["addr"], told["count"], "peer" in told) == ("/ip4/192.0.2.1", 999, False)


def test_peers_that_we_dialled_are_told_apart():
    repeats = Repeats(WINDOW)
    for peer in "ab":
        assert repeats.line(line("refused", direction="outbound", peer=peer, addr="/ip4/192.0.2.1/tcp/1"), 0.0)[0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["handler_failed", "api_failed"]),
            st.sampled_from(["ValueError: a", "ValueError: b", "KeyError"]),
            st.sampled_from(["a", "b"]),
            st.floats(0, 4),
        )
    ),
    st.integers(1, 4),
)
def test_nothing_is_lost_and_no_errors_with_different_texts_are_one(calls, limit):
    """Every line was printed, or is in the count of one that was and that it equals."""
    repeats = Repeats(WINDOW, limit=limit)
    now = 0.0
    seen: Counter = Counter()
    told: Counter = Counter()

    def summed(rows):
        for row in rows:
            told[row["what"], row["error"], row["peer"]] += row["count"]

    for event, text, peer, pause in calls:
        now += pause
        fields = line(event, level="error", error=text, exception=f"Traceback\n{text}", peer=peer)
        printed, rows = repeats.line(fields, now)
        summed(rows)
        seen[event, text, peer] += 1
        told[event, text, peer] += printed
        assert len(repeats) <= limit
    summed(repeats.close())
    assert told == seen


@given(st.dictionaries(st.sampled_from(["error", "exception", "detail"]), st.text()), st.text(), st.text())
def test_texts_that_differ_are_told_apart(fields, one, other):
    first, second = told_apart(line(**{**fields, "error": one})), told_apart(line(**{**fields, "error": other}))
    assert (first == second) == (one == other)


def test_what_fails_for_long_is_a_warning_now_and_then():
    assert [failures for failures in range(1, 100) if worth_a_warning(failures)] == [1, 2, 3, 4, 5, 8, 16, 32, 64]
