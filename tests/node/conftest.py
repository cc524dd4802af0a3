"""What all tests of the node share."""

from __future__ import annotations

import logging

import pytest

from node.log import Handler


@pytest.fixture(autouse=True)
def _logging():
    """A command that runs in the test's process sets its logging up; here it is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("vouch", "libp2p", "aioquic", "noise")}
    yield
    for handler in root.handlers:
        if handler not in handlers and isinstance(handler, Handler):
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
