"""What probes found, judged: an address has a right PTR, is on no blocklist, is plumbed, reaches port 25, and is seen as itself.

Every answer has three values. "Could not ask" is never taken for "no": an outage of the DNS drains nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN, Verdict
from mailfleet_operator.decisions.life import CHECKS, EGRESS, NOT_LISTED, PLUMBED, PORT25, PTR

LISTED, CLEAN, NOT_KNOWN = "Listed", "Clean", "Unknown"

ERRORS = ipaddress.ip_network("127.255.255.0/24")
"""What DNSBLs answer to those they do not want to answer: open resolvers, too many questions, a mistyped zone. Spamhaus,
https://www.spamhaus.org/faqs/dnsbl-usage/, read 2026-11-22."""
LISTINGS = ipaddress.ip_network("127.0.0.0/8")
"""RFC 5782 2.1. Anything else is a zone that was given up and answers for whoever bought the domain."""

CONFIRMATIONS = 2
"""So many looks in a row must find an address wrong that was right, before it is: a zone may be half reloaded."""


class Named(NamedTuple):
    """What the DNS says of one address."""

    address: str
    names: tuple[str, ...] | None
    """Its PTR records; None: could not ask."""
    leads_to: tuple[str, ...] | None
    """The addresses of the EHLO name; None: could not ask."""


class Answer(NamedTuple):
    """What one blocklist says of one address."""

    zone: str
    address: str
    answers: tuple[str, ...] | None
    """Empty: not listed. None: could not ask."""


class Path(NamedTuple):
    """What came of a connection by the way that mail goes; None: it was not tried, or cannot be tried from here."""

    plumbed: bool | None = None
    reached: bool | None = None
    seen: str = ""
    """The address that the other side says it sees; empty: it does not say."""
    trouble: str = ""


class Findings(NamedTuple):
    """Everything that one look found."""

    at: float
    names: tuple[Named, ...] = ()
    answers: tuple[Answer, ...] = ()
    path: Path = Path()


class Listing(NamedTuple):
    """A blocklist's verdict, as the status shows it."""

    zone: str
    verdict: str
    answer: str = ""


def judge(findings: Findings, hostname: str, address: str, target: str) -> dict[str, Verdict]:
    """The checks of one look. `target` is what port 25 was tried at; empty: nothing."""
    return {
        PTR: _ptr(findings.names, hostname),
        NOT_LISTED: _not_listed(listings(findings.answers)),
        PLUMBED: _plumbed(findings.path),
        PORT25: _port25(findings.path, target),
        EGRESS: _seen(findings.path, address),
    }


def _ptr(names: Sequence[Named], hostname: str) -> Verdict:
    unknown = ""
    for named in names:
        if named.names is None:
            unknown = f"the PTR of {named.address} could not be asked"
        elif not named.names:
            return Verdict(FALSE, "NoPTR", f"{named.address} has no PTR; it must be {hostname}")
        elif _plain(hostname) not in {_plain(name) for name in named.names}:
            return Verdict(
                FALSE, "PTRMismatch", f"the PTR of {named.address} is {', '.join(named.names)}, not {hostname}"
            )
        elif named.leads_to is None:
            unknown = f"the addresses of {hostname} could not be asked"
        elif not _among(named.address, named.leads_to):
            where = ", ".join(named.leads_to) or "no address"
            return Verdict(FALSE, "NotForwardConfirmed", f"{hostname} leads to {where}, not to {named.address}")
    if unknown or not names:
        return Verdict(UNKNOWN, "DNSUnavailable", unknown or "not looked at yet")
    return Verdict(TRUE, "Verified", f"PTR and {hostname} agree")


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _among(address: str, addresses: Sequence[str]) -> bool:
    wanted = ipaddress.ip_address(address)
    return any(ipaddress.ip_address(each) == wanted for each in addresses)


def listed(answers: tuple[str, ...] | None) -> str:
    """Listed, Clean or Unknown, by the A records that a DNSBL gave."""
    if answers is None:
        return NOT_KNOWN
    if not answers:
        return CLEAN
    return LISTED if any(_is_listing(answer) for answer in answers) else NOT_KNOWN


def _is_listing(answer: str) -> bool:
    try:
        found = ipaddress.ip_address(answer)
    except ValueError:
        return False
    return found in LISTINGS and found not in ERRORS and str(found) != "127.0.0.1"


def listings(answers: Sequence[Answer]) -> tuple[Listing, ...]:
    """Of each zone the worst that it says of any of the addresses."""
    rank = {CLEAN: 0, NOT_KNOWN: 1, LISTED: 2}
    worst: dict[str, Listing] = {}
    for answer in answers:
        verdict = listed(answer.answers)
        if answer.zone not in worst or rank[verdict] > rank[worst[answer.zone].verdict]:
            worst[answer.zone] = Listing(answer.zone, verdict, ", ".join(answer.answers or ()))
    return tuple(worst.values())


def _not_listed(found: Sequence[Listing]) -> Verdict:
    on = [each for each in found if each.verdict == LISTED]
    if on:
        return Verdict(FALSE, "Listed", "; ".join(f"listed by {each.zone} ({each.answer})" for each in on))
    unknown = [each.zone for each in found if each.verdict == NOT_KNOWN]
    if unknown:
        return Verdict(UNKNOWN, "NoAnswer", f"no usable answer of {', '.join(unknown)}")
    if not found:
        return Verdict(UNKNOWN, "NotChecked", "no blocklists are named")
    return Verdict(TRUE, "Clean", f"not listed by {', '.join(each.zone for each in found)}")


def _plumbed(path: Path) -> Verdict:
    if path.plumbed is None:
        return Verdict(UNKNOWN, "NotChecked", path.trouble or "only the senders know")
    if not path.plumbed:
        return Verdict(FALSE, "NotPlumbed", path.trouble or "no machine has the address")
    return Verdict(TRUE, "Plumbed", "the proxy can bind the address")


def _port25(path: Path, target: str) -> Verdict:
    if path.reached is None:
        return Verdict(UNKNOWN, "NotChecked", path.trouble or "nothing is named to try")
    if not path.reached:
        return Verdict(FALSE, "Unreachable", f"{target}: {path.trouble}")
    return Verdict(TRUE, "Reachable", f"{target} answers")


def _seen(path: Path, address: str) -> Verdict:
    if not path.seen:
        return Verdict(UNKNOWN, "NotSeen", "nobody has said yet which address it sees")
    if not address or not _among(path.seen, (address,)):
        return Verdict(FALSE, "AddressMismatch", f"outside it is seen as {path.seen}, not as {address}")
    return Verdict(TRUE, "Verified", f"outside it is seen as {path.seen}")


class Seen(NamedTuple):
    """What is held for true of an address, and how often in a row each check has contradicted it."""

    checks: Mapping[str, Verdict]
    against: Mapping[str, int]

    @property
    def unconfirmed(self) -> bool:
        """Something looks wrong and wants another look soon."""
        return any(0 < count < CONFIRMATIONS for count in self.against.values())


NEVER = Seen({}, {})


def confirm(before: Seen, found: Mapping[str, Verdict]) -> Seen:
    """What is held for true after another look: what was right is wrong only when it was found wrong several times in a
    row; everything else is as found."""
    checks, against = dict(before.checks), {}
    for kind in CHECKS:
        verdict = found.get(kind)
        if verdict is None:
            continue
        count = before.against.get(kind, 0) + 1 if verdict.status == FALSE else 0
        held = before.checks.get(kind)
        if verdict.status == FALSE and held is not None and held.status != FALSE and count < CONFIRMATIONS:
            against[kind] = count
            continue
        against[kind] = CONFIRMATIONS if verdict.status == FALSE else 0
        checks[kind] = verdict
    return Seen(checks, against)


def reversed_name(address: str, zone: str) -> str:
    """What to ask a DNSBL for `address` (RFC 5782 2.1, 2.4)."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone.strip('.')}"
