"""The resolver against a real name server on loopback."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.nameserver
import pytest

from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import DnsTemporary, MxAnswer
from mailfleet_core.dns.resolver import DnspythonResolver, a_labels, literal
from mailfleet_core.settings import DnsSettings
from support.dns_server import DnsServer


@dataclass
class HandClock(SystemClock):
    """A monotonic clock that a test moves."""

    at: float = 1000.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.at


def resolver_of(server: DnsServer, clock: HandClock | None = None, timeout: float = 5.0) -> DnspythonResolver:
    settings = DnsSettings(nameservers=(f"127.0.0.1:{server.port}",), timeout_seconds=timeout)
    return DnspythonResolver(settings, clock or HandClock())


ZONE = {
    ("a.example", "MX"): (300, ["20 MX2.a.example.", "10 mx1.A.example."]),
    ("mx1.a.example", "A"): (300, ["192.0.2.1"]),
    ("mx1.a.example", "AAAA"): (300, ["2001:db8::1"]),
    ("null.example", "MX"): (300, ["0 ."]),
    ("bare.example", "A"): (300, ["192.0.2.9"]),
    ("mute.example", "TXT"): (300, ["nothing"]),
    ("alias.example", "CNAME"): (300, ["a.example."]),
    ("xn--bcher-kva.example", "MX"): (300, ["10 mx1.a.example."]),
    ("many.example", "MX"): (300, [f"{n} mx{n}.a.example." for n in range(120)]),
    ("zero.example", "MX"): (0, ["10 mx1.a.example."]),
}


async def test_mx_hosts_come_best_first_in_lower_case_without_the_last_dot() -> None:
    async with DnsServer(ZONE) as server:
        answer = await resolver_of(server).mx("A.example.")
    assert answer == MxAnswer("mx", ((10, "mx1.a.example"), (20, "mx2.a.example")))


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("null.example", MxAnswer("null")),
        ("bare.example", MxAnswer("implicit", ((0, "bare.example"),))),
        ("mute.example", MxAnswer("missing")),
        ("nowhere.example", MxAnswer("missing")),
        ("alias.example", MxAnswer("mx", ((10, "mx1.a.example"), (20, "mx2.a.example")))),
        ("Bücher.example", MxAnswer("mx", ((10, "mx1.a.example"),))),
        ("bad..example", MxAnswer("missing")),
        ("x" * 64 + ".example", MxAnswer("missing")),
        ("[192.0.2.7]", MxAnswer("implicit", ((0, "192.0.2.7"),))),
    ],
)
async def test_every_kind_of_domain_has_its_kind_of_answer(domain: str, answer: MxAnswer) -> None:
    async with DnsServer(ZONE) as server:
        assert await resolver_of(server).mx(domain) == answer


async def test_at_most_twenty_mx_hosts_are_kept() -> None:
    async with DnsServer(ZONE) as server:
        answer = await resolver_of(server).mx("many.example")
    assert [preference for preference, _ in answer.hosts] == list(range(20))


async def test_a_failing_name_server_is_never_a_missing_domain() -> None:
    async with DnsServer(ZONE, servfail={"a.example"}, silent={"bare.example"}) as server:
        resolver = resolver_of(server, timeout=0.4)
        for domain in ("a.example", "bare.example"):
            with pytest.raises(DnsTemporary):
                await resolver.mx(domain)


async def stock(server: DnsServer, domain: str) -> list[tuple[int, str]]:
    """dnspython's own answer."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", server.port)]
    resolver.lifetime = 2.0
    return [(record.preference, record.exchange.to_text()) for record in await resolver.resolve(domain, "MX")]


async def test_a_null_mx_is_a_host_and_120_mx_are_120_for_the_stock_resolver() -> None:
    async with DnsServer(ZONE) as server:
        assert await stock(server, "null.example") == [(0, ".")]
        assert len(await stock(server, "many.example")) == 120


async def test_servfail_and_nxdomain_are_the_same_kind_of_error_and_a_ttl_of_zero_is_a_question_each_by_stock() -> None:
    async with DnsServer(ZONE, servfail={"a.example"}) as server:
        for domain in ("a.example", "nowhere.example"):
            with pytest.raises(dns.exception.DNSException):
                await stock(server, domain)
        for _ in range(3):
            await stock(server, "zero.example")
        assert server.asked["zero.example", "MX"] == 3


async def test_a_long_answer_is_fetched_over_tcp() -> None:
    async with DnsServer(ZONE, truncated={"a.example"}) as server:
        assert (await resolver_of(server).mx("a.example")).kind == "mx"
    assert server.over_tcp["a.example"] == 1


async def test_addresses_of_both_families_are_found_and_literals_are_no_question() -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_of(server)
        assert await resolver.addresses("mx1.a.example") == ("192.0.2.1", "2001:db8::1")
        assert await resolver.addresses("mx9.a.example") == ()
        asked = server.asked.total()
        assert await resolver.addresses("192.0.2.55") == ("192.0.2.55",)
        assert await resolver.addresses("localhost") == ("127.0.0.1", "::1")
        assert server.asked.total() == asked


async def test_many_askers_at_once_are_one_question_and_one_giving_up_harms_nobody() -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_of(server)
        first = asyncio.ensure_future(resolver.mx("a.example"))
        others = [asyncio.ensure_future(resolver.mx("a.example")) for _ in range(50)]
        await asyncio.sleep(0)
        first.cancel()
        assert {answer.kind for answer in await asyncio.gather(*others)} == {"mx"}
    assert server.asked["a.example", "MX"] == 1


async def test_answers_live_as_long_as_their_ttl_and_a_ttl_of_zero_for_a_second() -> None:
    clock = HandClock()
    async with DnsServer(ZONE) as server:
        resolver = resolver_of(server, clock)
        for moment, asked in ((0, 1), (299, 1), (301, 2)):
            clock.at = 1000 + moment
            await resolver.mx("a.example")
            assert server.asked["a.example", "MX"] == asked
        for moment, asked in ((400, 1), (400.5, 1), (401.5, 2)):
            clock.at = 1000 + moment
            await resolver.mx("zero.example")
            assert server.asked["zero.example", "MX"] == asked


async def test_a_no_is_kept_as_long_as_the_zone_says_and_a_failure_only_for_seconds() -> None:
    clock = HandClock()
    async with DnsServer(ZONE, servfail={"a.example"}) as server:
        resolver = resolver_of(server, clock)
        for moment, asked in ((0, 1), (59, 1), (61, 2)):
            clock.at = 1000 + moment
            await resolver.mx("nowhere.example")
            assert server.asked["nowhere.example", "MX"] == asked
        with pytest.raises(DnsTemporary):
            await resolver.mx("a.example")
        questions = server.asked["a.example", "MX"]
        with pytest.raises(DnsTemporary):
            await resolver.mx("a.example")
        assert server.asked["a.example", "MX"] == questions
        server.servfail.clear()
        clock.at += 6
        assert (await resolver.mx("a.example")).kind == "mx"


def test_names_become_a_labels_and_odd_ones_are_refused() -> None:
    assert a_labels("BÜCHER.example") == a_labels("xn--bcher-kva.EXAMPLE.") == "xn--bcher-kva.example"
    assert a_labels("_x.example") == "_x.example"
    for odd in ("", ".", "a b.example", "a\r\n.example", "\u202e.example", "a..b"):
        with pytest.raises(ValueError, match=r"."):
            a_labels(odd)


def test_literals_are_recognised_in_all_their_forms() -> None:
    assert [literal(t) for t in ("192.0.2.1", "[192.0.2.1]", "[IPv6:2001:DB8::1]", "mx.example")] == [
        "192.0.2.1", "192.0.2.1", "2001:db8::1", "",
    ]  # fmt: skip
