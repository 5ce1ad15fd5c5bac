"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mailfleet",
    deadline=None,  # A busy machine is slow, not wrong.
    suppress_health_check=[HealthCheck.too_slow],
    # The same examples each time where nobody looks on; others on a developer's machine.
    derandomize=os.environ.get("MAILFLEET_REQUIRE_ALL") == "1",
    print_blob=True,
)
settings.load_profile("mailfleet")
