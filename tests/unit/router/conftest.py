"""A router on the memory log for tests that take `fleet`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support import fleet as building


@pytest.fixture
async def fleet() -> AsyncIterator[building.Fleet]:
    async with building.fleet({}) as it:
        yield it
