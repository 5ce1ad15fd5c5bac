"""What the sender refuses to start with."""

from __future__ import annotations

import pytest

from mailfleet_core.settings import SettingsError, SourceSettings
from mailfleet_sender.settings import SenderSettings, check, check_sources


@pytest.mark.parametrize(
    "wrong", [{"ip_order": "ipv5"}, {"allowed_inside": ("10.0.0.0/40",)}, {"allowed_inside": ("db",)}]
)
def test_settings_that_cannot_be_meant_stop_the_start_and_say_where(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"\[sender\]"):
        check(SenderSettings(**wrong))  # type: ignore[arg-type]
    check(SenderSettings(allowed_inside=("10.1.2.3/8", "::1")))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"proxy": "http://proxy", "address": "203.0.113.7"}, "write socks5://"),
        ({"proxy": "socks5://a:b@proxy", "address": "203.0.113.7"}, "proxy_users_file"),
        ({"proxy": "socks5://proxy"}, "the source has none"),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_the_start(source: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_sources([SourceSettings(name="one", **source)])  # type: ignore[arg-type]
    check_sources(
        [SourceSettings(name="one", proxy="socks5s://a@proxy", address6="2001:db8::7"), SourceSettings(name="two")]
    )
