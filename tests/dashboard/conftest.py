"""A browser for the dashboard's tests, and where their pictures are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dashboard import chromium

ARTEFACTS = Path(__file__).parents[1] / ".artifacts" / "dashboard"


@pytest.fixture
def program() -> str:
    return chromium.find(why="the dashboard is looked at in a browser")


@pytest.fixture
async def browser(program):
    async with chromium.chromium(program) as found:
        yield found


@pytest.fixture
def pictures() -> Path:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS
