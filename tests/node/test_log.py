"""The log's handler: what becomes of it is never the node's trouble."""

from __future__ import annotations

import io
import logging

from node.log import configure, get_logger


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
