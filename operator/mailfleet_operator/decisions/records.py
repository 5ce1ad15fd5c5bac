"""What the log is told of sources and pools (`mail.control`), and what it is told only when it is news."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from mailfleet_core.model import wire
from mailfleet_operator.decisions.life import QUARANTINED, RETIRED, SENDING
from mailfleet_operator.decisions.resources import EGRESS_GATEWAY, EGRESS_PROXY, POD_NETWORK, Address, Pool

BY = "operator"
PROBE_WEIGHT = 1
"""Of a source in quarantine that the routers may still probe with."""
RETIRED_SECONDS = 60.0
"""A retired source is told of so long before its record goes."""


def source(
    address: Address,
    pool: Pool | None,
    was: str,
    state: str,
    cause: str,
    lanes: tuple[int, ...],
    warmup: tuple[str, float],
    now: float,
) -> wire.Source:
    """The record of a source: `was` is the pool it had, `state` is of its life, `cause` why, `warmup` its plan and since when."""
    spec = address.spec
    plan, started_at = warmup
    # On a pod's own network no address but the pod's can be bound, and somebody else puts the public one there.
    bound = pool is None or pool.spec.egress.mode not in (POD_NETWORK, EGRESS_GATEWAY)
    weight = next((each.weight for each in pool.spec.sources if each.name == address.name), 100) if pool else 1
    return wire.Source(
        name=address.name,
        pool=pool.name if pool else was,
        weight=PROBE_WEIGHT if state == QUARANTINED else weight,
        address=(spec.bind_address or spec.address) if bound else "",
        address6=spec.address6 if bound else "",
        ehlo_name=spec.hostname,
        lanes=lanes,
        proxy=proxy_of(address, pool),
        state=_wire_state(state, pool),
        warmup=plan,
        started_at=started_at,
        reason="" if state in SENDING else cause,
        by=BY,
        at=now,
    )


def _wire_state(state: str, pool: Pool | None) -> str:
    if state in SENDING:
        return wire.ACTIVE
    if state == QUARANTINED:
        probes = pool is not None and pool.spec.reputation.on_quarantine == "Probe"
        return wire.ACTIVE if probes else wire.QUARANTINED
    return wire.RETIRED if state == RETIRED else wire.DRAINING


def proxy_of(address: Address, pool: Pool | None) -> str:
    """`socks5://user@host:port` that connections of the source go through; empty: none."""
    if pool is None or pool.spec.egress.mode != EGRESS_PROXY:
        return ""
    endpoints = pool.spec.egress.proxy.endpoints
    endpoint = address.spec.proxy or (endpoints[0] if endpoints else "")
    proxy = pool.spec.egress.proxy
    user = f"{quote(proxy.user, safe='')}@" if proxy.user else ""
    return f"socks5{'s' * proxy.tls}://{user}{endpoint}" if endpoint else ""


def gone(told: wire.Source, now: float) -> wire.Source | None:
    """What to say of a source whose SendingIP is no more: nothing new goes by it, its lanes are given up; None: remove it,
    for every router and sender has had time to hear that."""
    if told.state == wire.RETIRED and not told.lanes:
        return None if now - told.at >= RETIRED_SECONDS else told
    return msgspec.structs.replace(told, state=wire.RETIRED, lanes=(), reason="removed", by=BY, at=now)


def news(told: wire.Source | wire.Pool | None, record: wire.Source | wire.Pool) -> bool:
    """Does `record` say anything besides another time?"""
    return told is None or msgspec.structs.replace(told, at=0.0) != msgspec.structs.replace(record, at=0.0)
