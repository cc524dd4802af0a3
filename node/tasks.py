"""The type of what `nursery.start` hands to a task, for a task that has nothing to report but that it is ready.

py-libp2p brings trio-typing, whose old stubs stand before trio's own types and lack this one; here is the one place
that works around them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

TaskStatus: TypeAlias = Any  # trio.TaskStatus[None]
