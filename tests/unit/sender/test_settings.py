"""What the sender refuses to start with."""

from __future__ import annotations

import pytest

from mailfleet_core.settings import SettingsError
from mailfleet_sender.settings import SenderSettings, check


@pytest.mark.parametrize(
    "wrong", [{"ip_order": "ipv5"}, {"allowed_inside": ("10.0.0.0/40",)}, {"allowed_inside": ("db",)}]
)
def test_settings_that_cannot_be_meant_stop_the_start_and_say_where(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"\[sender\]"):
        check(SenderSettings(**wrong))  # type: ignore[arg-type]
    check(SenderSettings(allowed_inside=("10.1.2.3/8", "::1")))
