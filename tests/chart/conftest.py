"""Each case of the chart is a file in its `ci` folder."""

from __future__ import annotations

import pytest

from support.helm_chart import CASES


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Each file in `ci`."""
    return str(request.param)
