"""A plugin of pytest: the project that the tests import is off by a byte, as INTEROP_MUTATE says (`mutate`).

`python -m pytest -p interop.ends.mutated tests/...` is how `interop.matrix.mutations` runs a test. Processes that the
tests start are as they are, but for our ends (`interop.ends`), which read the variable themselves.
"""

from __future__ import annotations

import os

from interop.ends import mutate

mutate.install(os.environ.get(mutate.VARIABLE, ""))
