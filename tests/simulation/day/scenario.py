"""The scripted day: what stands in `scenario.yaml`, as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from mailfleet_core.model.reply import Answer, Reply
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.sample import sample
from mailfleet_router.decisions.shaping.values import seconds
from mailfleet_sender.decisions.settle import outcome

FILE = Path(__file__).with_name("scenario.yaml")
MIDNIGHT = 1_800_057_600.0
"""When the day begins; it is a midnight in Greenwich."""
DAY_SECONDS = 86_400.0


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file: closed."""


class Pool(Spec, frozen=True):
    """Egress sources; the last `new` of them have never sent before."""

    name: str
    sources: int
    new: int = 0
    overflow: str = ""


class Campaign(Spec, frozen=True):
    """What a tenant sends in the day: along a curve, or evenly in a part of it."""

    tenant: str
    stream: str
    pool: str
    share: float
    life: str
    curve: str = ""
    begins: str = ""
    lasts: str = ""
    unknown: float = 0.0
    spam: float = 0.0


class Incident(Spec, frozen=True):
    """A receiver in trouble."""

    provider: str
    begins: str
    lasts: str
    refuses: bool = False
    slower: float = 1.0

    @property
    def span(self) -> tuple[float, float]:
        """From when to when."""
        start = MIDNIGHT + of_day(self.begins)
        return start, start + seconds(self.lasts)


class Receiver(Spec, frozen=True):
    """One of the large ones."""

    name: str
    share: float
    mx: tuple[str, ...]
    seconds: float
    rate: float
    new_rate: float
    connections: int
    reputation: float
    block: str
    domains: tuple[str, ...] = ()
    hosted: int = 0
    per_connection: int = 100
    greylists: str = ""
    """`triple`: of (source, tenant, recipient); `source`: of (source, domain)."""
    patience: int = 15
    says: dict[str, str] = {}


class Small(Spec, frozen=True):
    """All others."""

    hosters: int
    at_hosters: float
    greylists: float
    seconds: float
    connections: int


class Scenario(Spec, frozen=True):
    """The whole file, at its own size or made smaller."""

    seed: int
    mails: int
    domains: int
    partitions: int
    curves: dict[str, tuple[float, ...]]
    pools: tuple[Pool, ...]
    campaigns: tuple[Campaign, ...]
    incidents: tuple[Incident, ...]
    receivers: tuple[Receiver, ...]
    small: Small
    says: dict[str, str]
    policy: dict[str, Any]
    rate_share: float = 1.0
    """What is left of every rate per source."""

    def sources(self, pool: Pool) -> list[str]:
        """The names of its sources, new ones last."""
        return [f"{pool.name}-{number + 1}" for number in range(pool.sources)]

    def new_sources(self) -> frozenset[str]:
        """Those that never sent before."""
        return frozenset(
            name for pool in self.pools if pool.new for name in self.sources(pool)[pool.sources - pool.new :]
        )

    def all_sources(self) -> list[str]:
        """Of all pools."""
        return [name for pool in self.pools for name in self.sources(pool)]

    def reply(self, receiver: Receiver | None, what: str) -> RecipientOutcome:
        """What our sender makes of the reply that a receiver gives for `what`."""
        text = (receiver.says if receiver else {}).get(what) or self.says[what]
        read = sample(text)
        assert read is not None, text
        return outcome(0, Answer(Reply(read.code, read.enhanced, read.text), read.phase))


def load(mails: int = 0, sources_share: float = 1.0, path: Path = FILE) -> Scenario:
    """The day of the file with `mails` mails (0: as many as it says), and a share of its sources."""
    data = yaml.safe_load(path.read_text())
    scenario = msgspec.convert(data, Scenario)
    mails = mails or scenario.mails
    pools = tuple(_smaller(pool, sources_share) for pool in scenario.pools)
    before, left = sum(pool.sources for pool in scenario.pools), sum(pool.sources for pool in pools)
    rate_share = mails / scenario.mails * before / left
    return msgspec.structs.replace(scenario, mails=mails, pools=pools, rate_share=rate_share)


def _smaller(pool: Pool, share: float) -> Pool:
    sources = max(1, round(pool.sources * share))
    new = min(sources - 1, max(1, round(pool.new * share))) if pool.new else 0
    return msgspec.structs.replace(pool, sources=sources, new=new)


def of_day(text: str) -> float:
    """`10:30` → seconds since midnight."""
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0
