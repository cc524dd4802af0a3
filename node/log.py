"""Logs: text for people, JSON for machines; one line an event, with the same keys everywhere.

    get_logger("swarm").warning("refused", peer=..., addr=..., reason=...)

An event's name is snake_case and the keys are `node.logkeys.KEYS`. Loggers are the standard library's, named
`vouch.PART`, so that an application that embeds a node configures them as it configures its own; what they are given is
already bounded and without secrets (`node.logline`).

`configure` is for the command line: where the lines go, in which form; lines that repeat are counted (`node.repeats`),
and a thread writes (`node.logwriter`), so that the node doesn't wait for who reads its log.
py-libp2p logs what strangers do at error level and with tracebacks; its loggers, the part "libp2p", are heard only
where a level was set for them.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from node import logline
from node.config import LOG_LEVELS
from node.logkeys import LIBRARIES, PARTS
from node.logwriter import Writer
from node.repeats import Repeats

LEVELS = LOG_LEVELS
_PREFIX = "vouch."
_LIBRARIES = ("libp2p", "aioquic", "noise")
DEFAULT_WINDOW = 10.0
DEFAULT_QUEUE = 1 << 20


def _clean(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return logline.clean(fields)


_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _clean,
]
_parts: set[str] = set()
# what was set for the libraries, if anything was
_libraries_level = ""


def get_logger(part: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part of the node."""
    _parts.add(part)
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(_PREFIX + part),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        cache_logger_on_first_use=False,
    )
    return logger


def parts() -> list[str]:
    """The parts that log: the node's, those of protocols that were installed beside it, and "libp2p"."""
    return sorted({*PARTS, *_parts, LIBRARIES})


def levels() -> dict[str, str]:
    """The level of each part that has one of its own, and under "" the level of all others."""
    found = {"": _name(logging.getLogger("vouch").getEffectiveLevel())}
    for part in parts():
        level = _libraries_level if part == LIBRARIES else _name(logging.getLogger(_PREFIX + part).level)
        if level:
            found[part] = level
    return found


def set_level(part: str, level: str) -> None:
    """From now on the least severe lines that a part logs; part "": all that have no level of their own; level "": a
    part goes along with the others again, and "libp2p" is silent. Raises ValueError for a part or level that there
    isn't.
    """
    global _libraries_level
    if part and part not in parts():
        raise ValueError(f"expected one of the parts {', '.join(parts())}, got {part[:64]!r}")
    if level not in LEVELS and not (part and not level):
        raise ValueError(f"expected one of the levels {', '.join(LEVELS)}, got {level[:64]!r}")
    if part == LIBRARIES:
        _libraries_level = level
    else:
        logging.getLogger(_PREFIX + part if part else "vouch").setLevel(level.upper() or logging.NOTSET)
    _hear_libraries()


def configure(
    *,
    form: str,
    level: str,
    stream: TextIO | None = None,
    levels: Mapping[str, str] | None = None,
    repeat_window: float = DEFAULT_WINDOW,
    max_queue: int = DEFAULT_QUEUE,
) -> None:
    """Sends every log line of the process to `stream` (standard output), as `form` "text" or "json".

    `levels` are those of single parts, any others are forgotten; `repeat_window` in seconds, `max_queue` in bytes.
    Raises ValueError for a part or level that there isn't.
    """
    global _libraries_level
    handler = Handler(stream if stream is not None else sys.stdout, form, repeat_window, max_queue)
    handler.addFilter(_from_us)
    root = logging.getLogger()
    for before in root.handlers[:]:
        root.removeHandler(before)
        if isinstance(before, Handler):
            before.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    _libraries_level = ""
    for part in (*PARTS, *_parts):
        logging.getLogger(_PREFIX + part).setLevel(logging.NOTSET)
    set_level("", level)
    for part, own in (levels or {}).items():
        set_level(part, own)


def stats() -> dict[str, int]:
    """Of the log that was configured: `lines` printed, `dropped` as nobody read them in time, `collapsed` into others;
    bytes `waiting`, and the `limit` of those."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            return handler.stats()
    return dict.fromkeys(("lines", "dropped", "collapsed", "waiting", "limit"), 0)


class Handler(logging.Handler):
    """Goes on in silence when the reader of the log has gone: the node's work doesn't depend on it.

    A stream with a file descriptor is written to by a thread; any other, like a test's, at once.
    """

    def __init__(self, stream: TextIO, form: str, repeat_window: float, max_queue: int) -> None:
        super().__init__()
        self.stream = stream
        self._rules = threading.RLock()  # of `_repeats`, which the thread asks too; a finalizer may log within
        self._repeats = Repeats(repeat_window)
        self._limit = max_queue
        self._lines = 0
        colours = stream.isatty()

        def render(_logger: Any, _method: str, fields: Mapping[str, Any]) -> str:
            return logline.as_json(fields) if form == "json" else logline.as_text(fields, colours=colours)

        self._render = render
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=_SHARED,
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            )
        )
        try:
            stream.flush()
            descriptor = stream.fileno()
        except (io.UnsupportedOperation, AttributeError, ValueError, OSError):
            self._writer: Writer | None = None
        else:
            self._writer = Writer(
                descriptor, max_bytes=max_queue, marker=self._marker, tick=self._tick, gone=self._reader_gone
            )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            now = time.monotonic()
            with self._rules:
                printed, told = self._repeats.line(_fields(record), now)
                watch = not printed and self._writer is not None
            for fields in told:
                self._put(self._own(fields), important=False)
            if printed:
                self._put(self.format(record), important=record.levelno >= logging.WARNING)
            elif watch and self._writer is not None:
                self._writer.wake()
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if self._writer is None and self.stream.closed:
            logging.getLogger().removeHandler(self)
        elif isinstance(sys.exc_info()[1], BrokenPipeError):
            self._reader_gone()
        else:
            super().handleError(record)

    def flush(self) -> None:
        """Waits for the thread, not for a reader that reads nothing."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        with self._rules:
            told = self._repeats.close()
        if self._writer is not None or not self.stream.closed:
            for fields in told:
                self._put(self._own(fields), important=False)
        if self._writer is not None:
            self._writer.close()
        super().close()

    def stats(self) -> dict[str, int]:
        """See the function of this name."""
        writer = self._writer
        return {
            "lines": writer.written if writer else self._lines,
            "dropped": writer.dropped if writer else 0,
            "collapsed": self._repeats.collapsed,
            "waiting": writer.waiting if writer else 0,
            "limit": self._limit,
        }

    def _put(self, line: str, *, important: bool) -> None:
        encoding = self.stream.encoding or "utf8"
        data = f"{line}\n".encode(encoding, "backslashreplace")
        if self._writer is not None:
            self._writer.put(data, important=important)
        else:
            self.stream.write(data.decode(encoding))
            self.stream.flush()
            self._lines += 1

    def _own(self, fields: Mapping[str, Any]) -> str:
        """A line that no record stands behind."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return self._render(None, "", {"timestamp": stamp, **fields})

    def _marker(self, missing: int) -> bytes:
        fields = {"event": "log_lines_dropped", "level": "warning", "logger": "vouch.run", "count": missing}
        return f"{self._own(fields)}\n".encode()

    def _tick(self) -> float | None:
        with self._rules:
            told = self._repeats.due(time.monotonic())
            due = self._repeats.next_due
        for fields in told:
            self._put(self._own(fields), important=False)
        return due

    def _reader_gone(self) -> None:
        logging.getLogger().removeHandler(self)
        if not self.stream.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What tells a line from others."""
    if isinstance(record.msg, dict):
        return record.msg
    fields = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
    if record.exc_info and record.exc_info[1] is not None:
        fields["exception"] = repr(record.exc_info[1])
    return fields


def _name(level: int) -> str:
    return logging.getLevelName(level).lower() if level else ""


def _hear_libraries() -> None:
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.setLevel(_libraries_level.upper() or logging.CRITICAL)
        # py-libp2p switches it off when it is imported without LIBP2P_DEBUG
        logger.propagate = logger.propagate or bool(_libraries_level)


def _from_us(record: logging.LogRecord) -> bool:
    # some of py-libp2p's modules log to the root logger itself, so the name doesn't tell them apart
    return record.name != "root" or bool(_libraries_level)
