"""Where an accepted message goes: straight into one site's queue, or whole to a router that splits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from mailfleet_core.model import ids, wire
from mailfleet_core.model.shards import Numbered, home
from mailfleet_core.model.site import domain_of, partition_of


class OneSite(NamedTuple):
    """A unit, for `mail.queue`."""

    partition: int
    entry: wire.Entry


class SeveralSites(NamedTuple):
    """A message to split, for `mail.accept`."""

    accepted: wire.Accepted


def place(
    envelope: wire.Envelope,
    recipients: Sequence[wire.Recipient],
    sites: Mapping[str, str],
    per_unit: int,
    partitions: int,
    maps: Mapping[str, Numbered] = MappingProxyType({}),
) -> OneSite | SeveralSites:
    """One unit when all recipients are of one site and no more than `per_unit`. A domain not in `sites` is its own site;
    of a site in `maps` it is the unit's shard."""
    if len(recipients) == 1:
        domain = domain_of(recipients[0].address)
        site = sites.get(domain, domain)
    else:
        stamped = [sites.get(domain, domain) for domain in (domain_of(each.address) for each in recipients)]
        site = stamped[0]
        if len(recipients) > per_unit or any(other != site for other in stamped):
            return SeveralSites(wire.Accepted(envelope, tuple(recipients), tuple(stamped)))
    if site in maps:
        site = home(site, site, maps[site], envelope.message_id, envelope.pool)
    unit = wire.Unit(ids.unit_id(envelope.message_id, 0), site, envelope, tuple(recipients))
    return OneSite(partition_of(site, partitions), wire.Entry(unit))
