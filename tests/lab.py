"""What the tests in network namespaces share: whether they can run here at all."""

from __future__ import annotations

import os

import pytest

from interop.lab.netns import why_no_nat, why_no_shapes, why_not


def lab_or_skip(*, shapes: bool = False, nat: bool = False) -> None:
    """Skips the test where there are no namespaces (no lines that can be shaped, no NATs, if it needs those); fails it
    with INTEROP=require."""
    reason = why_not() or (why_no_shapes() if shapes else None) or (why_no_nat() if nat else None)
    if reason is None:
        return
    if os.environ.get("INTEROP") == "require":
        pytest.fail(f"INTEROP=require, but {reason}", pytrace=False)
    pytest.skip(reason)
