"""What the routers of the day are told: the policy of the scenario, with automation or without."""

from __future__ import annotations

from typing import Any

import msgspec

from mailfleet_core.model.wire import Route
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Ladder, Policy, Rule
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping import policy_file
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.learned import Learned, Lesson, Wide
from mailfleet_router.decisions.shaping.pace import NO_PACE
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.values import Facts, rate_per_second, seconds
from mailfleet_router.shell.traffic import shipped
from simulation.day.scenario import Scenario

ROUTE = Route("mx", (), max_connections=20)
"""What the settings allow where the policy says nothing."""


class Brain:
    """One process's routing and policy, and what its partitions are made of."""

    def __init__(self, scenario: Scenario, automation: bool) -> None:
        self.scenario, self.automation = scenario, automation
        self.lanes = {source: (lane,) for lane, source in enumerate(scenario.all_sources())}
        self.policy = _policy(scenario, automation, self.lanes)
        self.routing = Routing(self.policy)
        self.controls, self.wide = Controls(), Wide()

    def partition(self, number: int) -> Partition:
        """The decisions of one queue partition."""
        made = Partition(number, self.scenario.partitions, self.policy, self.routing, self.controls, self.wide)
        if not self.automation:
            shaper = made.shaper
            shaper.learned = NothingLearned(shaper.rules, self.wide, lambda kind, facts: NO_PACE)
        return made

    def message_rate(self, provider: str) -> float:
        """The configured limit of one source at a provider's site in messages per second; 0: none."""
        rules = self.policy.shaping
        effective = rules.limits.effective(Facts(source="any", site=provider, provider=provider))
        return min((one.values.message_rate for one in effective if one.values.message_rate), default=0.0)


class NothingLearned(Learned):
    """Answers teach nothing: what is off when automation is."""

    def answered(self, *_: object) -> Lesson:
        """Whatever it was."""
        return Lesson()


def _policy(scenario: Scenario, automation: bool, lanes: dict[str, tuple[int, ...]]) -> Policy:
    own = policy_file.from_data(_traffic(scenario, automation), "scenario.yaml")
    whole = policy_file.over(own, shipped())
    if not automation:
        bare = msgspec.structs.replace(whole.traffic, rules=(), warmup=())
        whole = policy_file.Policy(bare, whole.places)
    return Policy(
        ladders={
            ladder.stream: Ladder(tuple(map(seconds, ladder.retry)), ladder.jitter, 0.0, ladder.greylist and automation)
            for ladder in whole.traffic.ladders
        },
        pools={pool.name: tuple((name, 1) for name in scenario.sources(pool)) for pool in scenario.pools},
        lanes=lanes,
        rules=(Rule(("*",), ROUTE, site_window=4 * ROUTE.max_connections * len(lanes)),),
        recent_units=1000,
        shaping=Rules(whole),
    )


def _traffic(scenario: Scenario, automation: bool) -> dict[str, Any]:
    """The traffic policy as a file would say it, with rates as large as the day is."""
    data: dict[str, Any] = msgspec.to_builtins(scenario.policy)
    share = scenario.rate_share
    for limit in data["limits"]:
        limit["cases"] = [_scaled(case, share, automation) for case in limit["cases"]]
    for plan in data["warmup"]:
        plan["sources"] = sorted(scenario.new_sources())
        plan["day_caps"] = [max(1, round(cap * share)) for cap in plan["day_caps"]]
    pools = [
        {
            "name": pool.name,
            "sources": [{"source": name} for name in scenario.sources(pool)],
            **({"overflow": pool.overflow} if pool.overflow and automation else {}),
        }
        for pool in scenario.pools
    ]
    return {"version": 1, "pools": pools, **data}


def _scaled(case: dict[str, Any], share: float, automation: bool) -> dict[str, Any]:
    """A case with rates as large as the day is. A ramp follows what was sent: it is automation."""
    found = {name: value for name, value in case.items() if automation or name != "ramp"}
    for name in ("message_rate", "ramp"):
        if name in found:
            found[name] = f"{max(1, round(rate_per_second(found[name]) * share * 3600))}/h"
    return found
