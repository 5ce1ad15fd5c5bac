"""A message becomes units: each one message × one site × one next hop × at most N recipients."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mailfleet_core.model.ids import unit_id
from mailfleet_core.model.site import domain_of
from mailfleet_core.model.wire import Accepted, Recipient, Unit
from mailfleet_router.decisions.policy import Policy


def next_hop(address: str, policy: Policy) -> str:
    """What recipients must share to share a transaction: their static route, else their domain.

    Domains of one site may still have MX hosts of their own (Microsoft 365 has one for each customer), and one host
    refuses the others' recipients.
    """
    domain = domain_of(address)
    rule = policy.rule(domain)
    return rule.site or domain


def split(accepted: Accepted, policy: Policy) -> list[Unit]:
    """The units of a message. Splitting again gives the same ids, whatever was learned in between."""
    groups: dict[tuple[str, str], list[Recipient]] = {}
    for recipient, site in zip(accepted.recipients, accepted.sites, strict=True):
        groups.setdefault((site, next_hop(recipient.address, policy)), []).append(recipient)
    units = []
    for (site, _), recipients in groups.items():
        for part in _slices(recipients, policy.recipients_per_unit):
            key = unit_id(accepted.envelope.message_id, part[0].index)
            units.append(Unit(key, site, accepted.envelope, part))
    return units


def divide(unit: Unit, policy: Policy) -> tuple[Unit, list[Unit]]:
    """What stays of a unit whose recipients do not share a next hop, and the new units that are cut from it.

    A function of the unit alone, so that whoever does it again gets the same ids.
    """
    groups: dict[str, list[Recipient]] = {}
    for recipient in unit.recipients:
        groups.setdefault(next_hop(recipient.address, policy), []).append(recipient)
    if len(groups) <= 1 and len(unit.recipients) <= policy.recipients_per_unit:
        return unit, []
    parts = [part for group in groups.values() for part in _slices(group, policy.recipients_per_unit)]
    kept = msgspec.structs.replace(unit, recipients=parts[0])
    message = unit.envelope.message_id
    return kept, [Unit(unit_id(message, part[0].index), unit.site, unit.envelope, part) for part in parts[1:]]


def _slices(recipients: list[Recipient], size: int) -> Iterable[tuple[Recipient, ...]]:
    for start in range(0, len(recipients), max(1, size)):
        yield tuple(recipients[start : start + max(1, size)])
