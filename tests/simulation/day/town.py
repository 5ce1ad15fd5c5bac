"""Where mail goes: a hundred thousand domains by Zipf's law, their sites, and how much of the mail each gets."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from mailfleet_core.model.site import partition_of, site_name
from simulation.day.scenario import Receiver, Scenario


class Domain(NamedTuple):
    """A recipient domain."""

    name: str
    site: str
    receiver: int
    """Which of the large ones; the number of them for a small site."""
    hosts: tuple[tuple[int, str], ...]


class Quarter(NamedTuple):
    """The domains of one queue partition."""

    domains: list[Domain]
    weights: list[float]
    """Cumulative shares of all mail."""


CONSUMERS = 0.7
"""Share of a receiver's own domains where it hosts others as well."""


def quarters(scenario: Scenario) -> list[Quarter]:
    """All domains, by queue partition."""
    weighed: list[list[tuple[Domain, float]]] = [[] for _ in range(scenario.partitions)]
    for domain, weight in _everybody(scenario):
        weighed[partition_of(domain.site, scenario.partitions)].append((domain, weight))
    return [Quarter([domain for domain, _ in one], list(accumulate(weight for _, weight in one))) for one in weighed]


def _everybody(scenario: Scenario) -> list[tuple[Domain, float]]:
    found: list[tuple[Domain, float]] = []
    for index, receiver in enumerate(scenario.receivers):
        found += _of(receiver, index)
    left = scenario.domains - len(found)
    share = 1.0 - sum(receiver.share for receiver in scenario.receivers) / 100.0
    small, count = scenario.small, len(scenario.receivers)
    every = round(1 / small.at_hosters)
    for number, weight in enumerate(_zipf(left, share)):
        name = f"d{number}.example"
        host = f"mx.hoster{number % small.hosters}.example" if number % every == 0 else f"mx.{name}"
        found.append((Domain(name, site_name((host,)), count, ((10, host),)), weight))
    return found


def _of(receiver: Receiver, index: int) -> list[tuple[Domain, float]]:
    hosts = tuple((10 * (number + 1), host) for number, host in enumerate(receiver.mx))
    site = site_name(receiver.mx)
    own = receiver.share / 100.0 * (CONSUMERS if receiver.hosted else 1.0) if receiver.domains else 0.0
    hosted = [f"h{number}.{receiver.name}-hosted.example" for number in range(receiver.hosted)]
    return [
        (Domain(name, site, index, hosts), weight)
        for names, share in ((receiver.domains, own), (hosted, receiver.share / 100.0 - own))
        for name, weight in zip(names, _zipf(len(names), share), strict=True)
    ]


def _zipf(count: int, share: float) -> list[float]:
    total = sum(1.0 / rank for rank in range(1, count + 1))
    return [share / rank / total for rank in range(1, count + 1)]
