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
from mailfleet_router.decisions.shaping.schema import Case
from mailfleet_router.decisions.shaping.values import rate_per_second, seconds
from simulation.day.scenario import Scenario


class Brain:
    """One process's routing and policy, and what its partitions are made of."""

    def __init__(self, scenario: Scenario, automation: bool) -> None:
        self.scenario, self.automation = scenario, automation
        self.traffic = policy_file.from_data(_policy(scenario), "scenario.yaml").traffic
        self.lanes = {source: (lane,) for lane, source in enumerate(scenario.all_sources())}
        self.policy = self._settings()
        self.routing = Routing(self.policy)
        self.controls = Controls()

    def partition(self, number: int) -> Partition:
        """The decisions of one queue partition."""
        return Partition(number, self.scenario.partitions, self.policy, self.routing, self.controls)

    def message_rate(self, provider: str) -> float:
        """The configured limit of one source at a provider's site in messages per second; 0: none."""
        case = self._case(provider)
        return rate_per_second(case.message_rate) if case.message_rate else 0.0

    def _case(self, provider: str) -> Case:
        cases = self.traffic.limits[0].cases
        return next(case for case in cases if not case.when.provider or provider in case.when.provider)

    def _settings(self) -> Policy:
        scenario = self.scenario
        return Policy(
            ladders={
                ladder.stream: Ladder(tuple(map(seconds, ladder.retry)), ladder.jitter) for ladder in self.traffic.ladders
            },
            pools={pool.name: tuple((name, 1) for name in scenario.sources(pool)) for pool in scenario.pools},
            lanes=self.lanes,
            rules=(*[self._rule(receiver.name, (*receiver.domains, f"*.{receiver.name}-hosted.example")) for receiver in
                     scenario.receivers], self._rule("", ("*",))),
            recent_units=1000,
        )  # fmt: skip

    def _rule(self, provider: str, domains: tuple[str, ...]) -> Rule:
        case = self._case(provider)
        route = Route(
            "mx", (), max_connections=case.concurrency or 20, messages_per_connection=case.messages_per_connection or 100,
            messages_per_second=rate_per_second(case.message_rate) if case.message_rate else 0.0,
        )  # fmt: skip
        return Rule(domains, route, site_window=max(100, 4 * route.max_connections * len(self.lanes)))


def _policy(scenario: Scenario) -> dict[str, Any]:
    """The traffic policy as a file would say it, with rates as large as the day is."""
    data: dict[str, Any] = msgspec.to_builtins(scenario.policy)
    for limit in data["limits"]:
        limit["cases"] = [
            case | {"message_rate": _smaller(case["message_rate"], scenario.rate_share)}
            if "message_rate" in case
            else case
            for case in limit["cases"]
        ]
    pools = [
        {
            "name": pool.name,
            "sources": [{"source": name} for name in scenario.sources(pool)],
            **({"overflow": pool.overflow} if pool.overflow else {}),
        }
        for pool in scenario.pools
    ]
    return {"version": 1, "base": "none", "pools": pools, **data}


def _smaller(rate: str, share: float) -> str:
    return f"{max(1, round(rate_per_second(rate) * share * 3600))}/h"
