"""From where to where: what the proxy allows, how its errors are called, who its users are."""

from __future__ import annotations

import errno

import pytest

from mailfleet_core.dns.guard import InsideGuard
from mailfleet_core.settings import SettingsError
from mailfleet_core.socks.wire import Code
from mailfleet_egress.decisions import rules, users
from mailfleet_egress.decisions.plumbing import Plumbing
from mailfleet_egress.decisions.rules import DONE, Doorman, Rules
from mailfleet_egress.settings import EgressProxySettings, check

HERE = "203.0.113.7"


@pytest.fixture
def allowed() -> Rules:
    return Rules([HERE, "2001:DB8::7"], (25, 465), InsideGuard().permits)


def test_only_listed_sources_may_be_asked_for(allowed: Rules) -> None:
    assert allowed.source(HERE) == DONE
    assert allowed.source("2001:db8::7") == DONE
    assert allowed.source("203.0.113.8") == (Code.FORBIDDEN, "source")
    assert allowed.source("0.0.0.0") == (Code.FORBIDDEN, "source")


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("198.51.100.25", 25, DONE),
        ("198.51.100.25", 465, DONE),
        ("198.51.100.25", 22, (Code.FORBIDDEN, "port")),
        ("198.51.100.25", 0, (Code.FORBIDDEN, "port")),
        ("10.0.0.1", 25, (Code.FORBIDDEN, "inside")),
        ("127.0.0.1", 25, (Code.FORBIDDEN, "inside")),
        ("169.254.169.254", 25, (Code.FORBIDDEN, "inside")),
        ("::ffff:127.0.0.1", 25, (Code.FORBIDDEN, "inside")),
        ("::1", 25, (Code.FORBIDDEN, "inside")),
        ("2001:db8::25", 25, (Code.NO_SUCH_ADDRESS_TYPE, "family")),
    ],
)
def test_only_mail_servers_outside_may_be_connected_to(
    allowed: Rules, address: str, port: int, expected: tuple[Code, str]
) -> None:
    assert allowed.destination(HERE, address, port) == expected


def test_an_address_that_is_not_here_has_a_name_of_its_own() -> None:
    assert rules.binding(errno.EADDRNOTAVAIL) == (Code.FAILED, "unplumbed")
    assert rules.binding(errno.EMFILE) == (Code.FAILED, "local")


def test_what_a_stranger_can_provoke_is_never_a_fault_of_ours() -> None:
    for number in (errno.ENOPROTOOPT, errno.EPROTO, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, None):
        assert rules.connecting(number).code is not Code.FAILED
    assert rules.connecting(errno.ECONNREFUSED).code is Code.REFUSED
    assert rules.connecting(errno.ETIMEDOUT).code is Code.TIMED_OUT
    assert rules.connecting(errno.EADDRNOTAVAIL) == (Code.FAILED, "local")


def test_clients_are_counted_in_and_out() -> None:
    doorman = Doorman(most=3, most_each=2, networks=("10.0.0.0/8", "2001:db8::/32"))
    assert [doorman.admit("10.0.0.1") for _ in range(3)] == ["", "", "client_full"]
    assert doorman.admit("192.0.2.1") == "client"
    assert doorman.admit("not an address") == "client"
    assert [doorman.admit("2001:db8::1"), doorman.admit("10.0.0.2")] == ["", "full"]
    doorman.leave("10.0.0.1")
    assert doorman.admit("10.0.0.2") == ""


def test_a_password_is_compared_clear_or_hashed() -> None:
    secret = users.hashed("correct horse", b"salt")
    assert users.matches("correct horse", "correct horse")
    assert not users.matches("correct horse", "correct hors")
    assert users.matches(secret, "correct horse")
    assert not users.matches(secret, "correct hors")
    assert not users.matches(secret, secret)
    with pytest.raises(ValueError, match="hash of 'a'"):
        users.check({"a": "scrypt$zz$00"})


def test_what_was_proven_is_proven_for_that_secret_only() -> None:
    proven = users.Proven(b"key")
    proven.learn("scrypt$one", "password")
    assert proven.knows("scrypt$one", "password")
    assert not proven.knows("scrypt$two", "password")
    assert not proven.knows("scrypt$one", "other")


def test_only_a_change_of_an_address_is_news() -> None:
    plumbing = Plumbing([HERE, "203.0.113.8"])
    assert not plumbing.any
    assert plumbing.observe(HERE, "", 1.0)
    assert not plumbing.observe(HERE, "", 2.0)
    assert plumbing.any
    assert plumbing.observe(HERE, "Cannot assign requested address", 3.0)
    assert not plumbing.any
    assert plumbing.page() == {
        HERE: {"plumbed": False, "since": 3.0, "error": "Cannot assign requested address"}
    }  # fmt: skip


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.5"])
def test_it_does_not_start_as_an_open_proxy(address: str) -> None:
    with pytest.raises(SettingsError, match="without users_file"):
        check(EgressProxySettings(address=address, addresses=(HERE,)))
    check(EgressProxySettings(address=address, addresses=(HERE,), users_file="users"))
    check(EgressProxySettings(address=address, addresses=(HERE,), allow_without_users=True))
    check(EgressProxySettings(address="::1", addresses=(HERE,)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"addresses": ()}, "addresses is empty"),
        ({"addresses": ("203.0.113.0/28",)}, "no IP address"),
        ({"ports": (0,)}, "ports"),
        ({"networks": ("10/33",)}, "networks"),
        ({"allowed_inside": ("x",)}, "allowed_inside"),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(changed: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check(EgressProxySettings(**({"addresses": (HERE,)} | changed)))  # type: ignore[arg-type]
