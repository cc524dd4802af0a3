"""What tests need that isn't the project's: programs, peers in other languages, rights.

A test whose need isn't met is skipped and says why. Where INTEROP=require or CI is in the environment everything has to
be there: it fails.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Ends the test for that reason."""
    if os.environ.get("INTEROP") == "require" or os.environ.get("CI"):
        pytest.fail(f"expected all that tests need (INTEROP=require or CI), but {reason}", pytrace=False)
    pytest.skip(reason)


def program(*names: str, why: str) -> str:
    """The path of the first of those programs that is installed; without one the test ends for that reason."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or missing(f"there is no {' or '.join(names)} on the PATH: {why}")
