"""Settings → the values that the decisions are told."""

from __future__ import annotations

from typing import Any

from mailfleet_core.model.site import site_name
from mailfleet_core.model.sources import Table
from mailfleet_core.model.wire import Route
from mailfleet_core.settings import EgressSettings, RouteSettings, StreamSettings
from mailfleet_router.decisions.policy import Ladder, Policy, Rule, of_table
from mailfleet_router.decisions.shaping import schema
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.sections import plan_named
from mailfleet_router.decisions.shaping.values import seconds
from mailfleet_router.decisions.shaping.warmup import CONSERVATIVE
from mailfleet_router.settings import RouterSettings
from mailfleet_router.shell.traffic import NO_TRAFFIC, TrafficPolicy

MANY_SOURCES = 64
"""Nobody knows how many there will be in the log: a site's window shall not be what holds them back."""
PATIENT_SECONDS = 3600.0
"""Mail that lives so long can wait for what greylisting asks for."""


def policy(
    egress: EgressSettings, settings: RouterSettings, traffic: TrafficPolicy = NO_TRAFFIC, table: Table | None = None,
    shaping: Rules | None = None,
) -> Policy:  # fmt: skip
    """The policy that these settings ask for; what the own traffic policy says of ladders and pools goes before them.

    `table` are the sources of the log, where they come from there; `shaping` is the traffic policy, if it is made already.
    """
    own = traffic.own
    sources = of_table(table, own.pools) if table is not None else _of_settings(egress, own)
    return Policy(
        ladders={
            **{stream.name: _ladder(stream) for stream in egress.streams},
            **{item.stream: _own_ladder(item) for item in own.ladders},
        },
        **sources,
        rules=tuple(_rule(route, len(egress.sources) or MANY_SOURCES) for route in egress.routes),
        recipients_per_unit=settings.recipients_per_unit,
        in_flight_report_seconds=settings.in_flight_report_seconds,
        held_report_seconds=settings.held_report_seconds,
        recent_units=settings.recent_units,
        shaping=shaping or Rules(traffic.policy),
    )


def _of_settings(egress: EgressSettings, own: schema.Traffic) -> dict[str, Any]:
    lanes: dict[str, tuple[int, ...]] = {}
    for lane, (source, _) in egress.lanes().items():
        lanes[source.name] = (*lanes.get(source.name, ()), lane)
    pools = {pool.name: tuple((member.source, member.weight) for member in pool.sources) for pool in egress.pools}
    pools |= {pool.name: tuple((each.source, each.weight) for each in pool.sources) for pool in own.pools}
    return {"pools": {name: members for name, members in pools.items() if members}, "lanes": lanes}


def unknown_plans(table: Table, shaping: Rules) -> list[str]:
    """Sources of the log whose warm-up plan there is not, for people."""
    traffic = shaping.policy.traffic
    return [
        f"source {name} asks for the warm-up plan {source.warmup!r}, which there is not; it goes by {CONSERVATIVE.name!r}"
        for name, source in sorted(table.sources.items())
        if source.warmup and plan_named(traffic, source.warmup) is None
    ]


def _ladder(stream: StreamSettings) -> Ladder:
    patient = stream.expire_seconds >= PATIENT_SECONDS
    return Ladder(stream.retry_seconds, stream.jitter, stream.delay_dsn_seconds, patient)


def _own_ladder(item: schema.Ladder) -> Ladder:
    waits = tuple(seconds(wait) for wait in item.retry)
    return Ladder(waits, item.jitter, seconds(item.delay_dsn), item.greylist)


def _rule(route: RouteSettings, sources: int) -> Rule:
    hosts = tuple((0, host) for host in route.hosts) if route.kind != "mx" else ()
    hop = Route(
        kind=route.kind, hosts=hosts, port=route.port, tls=route.tls, username=route.username, name=route.name,
        max_connections=route.max_connections, connections_per_second=route.connections_per_second,
        messages_per_second=route.messages_per_second, messages_per_connection=route.messages_per_connection,
    )  # fmt: skip
    return Rule(
        domains=tuple(domain.lower() for domain in route.domains),
        route=hop,
        site="" if route.kind == "mx" else route.name or site_name(route.hosts),
        site_messages_per_second=route.site_messages_per_second,
        site_window=route.site_window or max(100, 4 * route.max_connections * sources),
    )
