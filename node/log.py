"""Logs: text for people, JSON for machines; one line an event, with the same keys everywhere.

    get_logger("swarm").warning("refused", peer=..., addr=..., reason=...)

Loggers are the standard library's, named `vouch.PART`, so that an application that embeds a node configures them as it
configures its own, and levels can be set part by part. `configure` is for the command line.
py-libp2p logs what strangers do at error level and with tracebacks; its loggers are heard only at debug.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO

import structlog

_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def get_logger(part: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part of the node."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"vouch.{part}"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        cache_logger_on_first_use=False,
    )
    return logger


LEVELS = ("debug", "info", "warning", "error")


def levels() -> dict[str, str]:
    """The level of each part that has one of its own, and under "" the level of all others."""
    prefix = "vouch."
    found = {"": logging.getLevelName(logging.getLogger("vouch").level).lower()}
    for name, logger in sorted(logging.root.manager.loggerDict.items()):
        if name.startswith(prefix) and isinstance(logger, logging.Logger) and logger.level:
            found[name.removeprefix(prefix)] = logging.getLevelName(logger.level).lower()
    return found


def parts() -> list[str]:
    """The parts that log."""
    return sorted(name.removeprefix("vouch.") for name in logging.root.manager.loggerDict if name.startswith("vouch."))


def set_level(part: str, level: str) -> None:
    """From now on the least severe lines that a part logs; part "": all that have no level of their own; level "": a
    part goes along with the others again. Raises ValueError for a part or level that there isn't.
    """
    if part and part not in parts():
        raise ValueError(f"expected one of the parts {', '.join(parts())}, got {part[:64]!r}")
    if level not in LEVELS and not (part and not level):
        raise ValueError(f"expected one of the levels {', '.join(LEVELS)}, got {level[:64]!r}")
    logging.getLogger(f"vouch.{part}" if part else "vouch").setLevel(level.upper() or logging.NOTSET)


def configure(*, form: str, level: str, stream: TextIO | None = None) -> None:
    """Sends every log line of the process to `stream` (standard output), as `form` "text" or "json"."""
    stream = stream if stream is not None else sys.stdout
    renderer: Any
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_from_us if level != "debug" else lambda _record: True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("vouch").setLevel(level.upper())
    for name in ("libp2p", "aioquic", "noise"):
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


class _Handler(logging.StreamHandler[TextIO]):
    """Goes on in silence when the reader of the log has gone: the node's work doesn't depend on it."""

    def handleError(self, record: logging.LogRecord) -> None:
        if self.stream.closed:
            logging.getLogger().removeHandler(self)
        elif isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger().removeHandler(self)
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        else:
            super().handleError(record)


def _from_us(record: logging.LogRecord) -> bool:
    # some of py-libp2p's modules log to the root logger itself, so the name doesn't tell them apart
    return record.name != "root"
