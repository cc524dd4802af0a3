"""A browser for the dashboard's tests, and where their pictures are kept.

INTEROP=require, CI    no Chromium is a failure; else the tests are skipped, naming the reason
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.dashboard import chromium

ARTEFACTS = Path(__file__).parents[1] / ".artifacts" / "dashboard"


@pytest.fixture
def program() -> str:
    found = chromium.find()
    if found is not None:
        return found
    reason = f"there is none of {', '.join(chromium.NAMES)} on the PATH"
    if os.environ.get("INTEROP") == "require" or os.environ.get("CI"):
        pytest.fail(f"a browser is required, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
async def browser(program):
    async with chromium.chromium(program) as found:
        yield found


@pytest.fixture
def pictures() -> Path:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS
