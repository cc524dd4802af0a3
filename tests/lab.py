"""What the tests in network namespaces share: whether they can run here at all."""

from __future__ import annotations

import os

import pytest

from interop.lab.netns import why_not


def lab_or_skip() -> None:
    """Skips the test where there are no namespaces; fails it where they are required and we are root."""
    reason = why_not()
    if reason is None:
        return
    if os.environ.get("INTEROP") == "require" and os.geteuid() == 0:
        pytest.fail(f"INTEROP=require, but {reason}", pytrace=False)
    pytest.skip(reason)
