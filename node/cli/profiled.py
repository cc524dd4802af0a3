"""`vouch run --profile FILE`: where the node's own code spends its time, as the standard library's pstats reads it.

cProfile, of the main thread, which is the one that runs the event loop; worker threads (look-ups of names) aren't seen.
It counts every call, so that everything takes longer, and small functions the most: docs/profiling.md. The file is
opened before the node starts and written at the end, however the run ends, but for a kill.
"""

from __future__ import annotations

import cProfile
import marshal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.errors import UsageError, VouchError


@contextmanager
def profiled(file: Path) -> Iterator[None]:
    """Profiles the block into `file`, and says on standard error how to read it.

    Raises UsageError, before the block, if the file can't be written; VouchError if that fails in the end.
    """
    try:
        output = file.open("wb")
    except OSError as error:
        raise UsageError(f"profile {file}: expected a file that can be written, got: {error.strerror}") from error
    profile = cProfile.Profile()
    try:
        profile.enable()
        yield
    finally:
        profile.disable()
        profile.create_stats()
        stats: Any = profile.stats  # what dump_stats writes, to a file that it opens itself
        try:
            with output:
                marshal.dump(stats, output)
        except OSError as error:
            raise VouchError(f"profile {file}: {error.strerror}") from error
        print(
            f"vouch: wrote the profile; read it with: python -m pstats {file} (sort tottime, stats 20)", file=sys.stderr
        )
