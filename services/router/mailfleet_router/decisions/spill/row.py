"""A unit as it lies in the local store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from sys import intern

import msgspec

from mailfleet_router.decisions.routing import Domain
from mailfleet_router.decisions.site_queue import Held, SiteQueue

SAME = (
    "key", "raw", "kind", "hop", "state", "attempts", "due_at", "accepted_at", "expires_at", "tenant", "pool", "stream",
    "lane", "since", "reported", "delay",
)  # fmt: skip
"""Fields that are written as they are. `site` and `domain` are written by name; `entry` is decoded from `raw`."""


class Row(msgspec.Struct, array_like=True, gc=False):
    """The fields of a `Held`, in the order of `SAME`, then the names."""

    key: bytes
    raw: bytes
    kind: bytes
    hop: int
    state: int
    attempts: int
    due_at: float
    accepted_at: float
    expires_at: float
    tenant: str
    pool: str
    stream: str
    lane: int
    since: float
    reported: str
    delay: int
    site: str
    domain: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Row]).decode


def pack(units: Iterable[Held]) -> bytes:
    """The bytes of a chunk."""
    return _encode([
        (
            held.key, held.raw, held.kind, held.hop, held.state, held.attempts, held.due_at, held.accepted_at,
            held.expires_at, held.tenant, held.pool, held.stream, held.lane, held.since, held.reported, held.delay,
            held.site.name if held.site is not None else "", held.domain.name if held.domain is not None else "",
        )
        for held in units
    ])  # fmt: skip


def unpack(data: bytes, site: Callable[[str], SiteQueue], domain: Callable[[str], Domain]) -> list[Held]:
    """The units of a chunk. Raises msgspec.MsgspecError."""
    sites: dict[str, SiteQueue | None] = {"": None}
    domains: dict[str, Domain | None] = {"": None}
    units = []
    for row in _decode(data):
        if row.site not in sites:
            sites[row.site] = site(row.site)
        if row.domain not in domains:
            domains[row.domain] = domain(row.domain)
        units.append(Held(
            row.key, row.raw, row.kind, row.hop, row.state, row.attempts, row.due_at, row.accepted_at, row.expires_at,
            sites[row.site], domains[row.domain], intern(row.tenant), intern(row.pool), intern(row.stream), row.lane,
            row.since, row.reported, row.delay,
        ))  # fmt: skip
    return units
