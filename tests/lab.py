"""What the tests in network namespaces share: whether they can run here at all."""

from __future__ import annotations

from interop.lab.netns import why_no_nat, why_no_shapes, why_not
from tests import required


def lab_or_skip(*, shapes: bool = False, nat: bool = False) -> None:
    """Ends the test where there are no namespaces (no lines that can be shaped, no NATs, if it needs those), see
    tests/required.py."""
    reason = why_not() or (why_no_shapes() if shapes else None) or (why_no_nat() if nat else None)
    if reason is not None:
        required.missing(reason)
