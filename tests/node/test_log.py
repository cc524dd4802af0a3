"""The log's handler: what becomes of it is never the node's trouble."""

from __future__ import annotations

import io
import json
import logging
import time

import pytest

from node.log import configure, get_logger, levels, parts, set_level, stats


def test_a_log_whose_stream_was_closed_ends_in_silence(capsys):
    stream = io.StringIO()
    configure(form="text", level="info", stream=stream)
    get_logger("part").info("heard", number=1)
    assert "heard" in stream.getvalue()
    stream.close()
    get_logger("part").error("unheard")
    assert logging.getLogger().handlers == []
    assert capsys.readouterr().err == ""


def test_text_that_the_stream_cannot_write_ends_no_log(capsys):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    configure(form="text", level="info", stream=stream)
    get_logger("part").info("odd", text="…")
    get_logger("part").info("plain")
    stream.flush()
    assert b"plain" in stream.buffer.getvalue()


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_error_is_one_line_with_its_traceback():
    stream = io.StringIO()
    configure(form="json", level="info", stream=stream)
    try:
        raise ValueError("odd\nadmitted peer=mallory")
    except ValueError as error:
        get_logger("part").error("call_failed", call="status", exc_info=error)
    (line,) = lines_of(stream)
    assert list(line) == ["timestamp", "level", "logger", "event", "call", "exception"]
    assert line["exception"].startswith("Traceback (most recent call last)")
    assert line["exception"].endswith("ValueError: odd\nadmitted peer=mallory")


def test_libraries_lines_are_bounded_and_without_secrets_too():
    stream = io.StringIO()
    configure(form="json", level="info", stream=stream)
    logging.getLogger("other.library").warning("a\nb %s Bearer hunter2 %s", {"token": 1}, "x" * 5000)
    logging.getLogger("other.library").info("small talk")
    (line,) = lines_of(stream)
    assert (line["logger"], line["level"]) == ("other.library", "warning")
    assert "hunter2" not in line["event"]
    assert len(line["event"]) < 1100


def test_repeats_are_told_at_the_end_of_the_log_at_the_latest():
    stream = io.StringIO()
    configure(form="json", level="info", stream=stream)
    for number in range(3):
        get_logger("part").info("not_discovered", peer="a", error="none", retry_in=number)
    get_logger("part").info("not_discovered", peer="b", error="none")
    assert stats()["collapsed"] == 2
    configure(form="json", level="info", stream=io.StringIO())
    assert [(line["event"], line["peer"]) for line in lines_of(stream)] == [
        ("not_discovered", "a"),
        ("not_discovered", "b"),
        ("repeated", "a"),
    ]
    last = lines_of(stream)[-1]
    assert (last["what"], last["count"], last["logger"], last["level"]) == ("not_discovered", 2, "vouch.part", "info")
    assert stats()["lines"] == 0


def test_the_thread_tells_of_repeats_when_nobody_logs_any_more(tmp_path):
    with (tmp_path / "log").open("w+") as stream:
        configure(form="json", level="info", stream=stream, repeat_window=0.2)
        for _ in range(2):
            get_logger("part").info("not_discovered", peer="a")
        deadline = time.monotonic() + 10
        while "repeated" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "log").read_text().count("\n") == 2
        assert stats()["lines"] >= 1
        configure(form="json", level="info", stream=io.StringIO())


def test_levels_of_parts():
    stream = io.StringIO()
    try:
        configure(form="json", level="warning", stream=stream, levels={"gossip": "debug"})
        get_logger("gossip").debug("heard")
        get_logger("peers").info("unheard")
        set_level("peers", "info")
        get_logger("peers").info("heard_now")
        assert levels() == {"": "warning", "gossip": "debug", "peers": "info"}
        set_level("peers", "")
        get_logger("peers").info("unheard")
        assert [line["event"] for line in lines_of(stream)] == ["heard", "heard_now"]
        assert "libp2p" in parts()
        for part, level in (("gosip", "info"), ("gossip", "loud"), ("", "")):
            with pytest.raises(ValueError, match="expected one of"):
                set_level(part, level)
    finally:
        configure(form="json", level="info", stream=io.StringIO())
    assert levels() == {"": "info"}


def test_py_libp2p_is_heard_on_request_only():
    stream = io.StringIO()
    configure(form="json", level="debug", stream=stream)
    library = logging.getLogger("libp2p.anything")
    library.error("unheard")
    logging.getLogger().warning("unheard")  # by some of its modules
    set_level("libp2p", "warning")
    library.info("unheard")
    library.warning("heard")
    logging.getLogger().warning("heard")
    assert levels()["libp2p"] == "warning"
    set_level("libp2p", "")
    library.error("unheard")
    assert [line["event"] for line in lines_of(stream)] == ["heard"] * 2
