"""Which limits hold for an attempt, who says so and where, and what else was said that does not decide, and why not."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mailfleet_router.decisions.shaping.limits import SENDERS, Effective, Limits, Values, least
from mailfleet_router.decisions.shaping.policy_file import Policy
from mailfleet_router.decisions.shaping.schema import QUANTITIES, Case
from mailfleet_router.decisions.shaping.values import FIELDS, Facts


class Explained(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value that a limit gives to a quantity. `msgspec.to_builtins` makes it JSON."""

    quantity: str
    value: str | int | bool
    """As the policy has it."""
    limit: str
    case: int
    """Its number in the limit, from 1."""
    place: str
    """`file:line`."""
    kept_by: str
    """`router` or `sender`."""
    counter: str
    """The key of the counter."""
    decides: bool
    why_not: str = ""
    url: str = ""
    """The public page that the value comes from."""
    date: str = ""


def explain(policy: Policy, limits: Limits, facts: Facts) -> tuple[Explained, ...]:
    """All values that hold for `facts`; of each quantity the one that decides first."""
    applied = limits.effective(facts)
    smallest = least(applied)
    found = []
    for quantity in (*QUANTITIES, "burst", "suspend"):
        values = list(_values(policy, applied, smallest, quantity))
        deciding = next((value for value in values if value.decides), None)
        found += [deciding] if deciding else []
        found += [_beaten(value, deciding) for value in values if value is not deciding]
    return tuple(found)


def lines(explained: tuple[Explained, ...], facts: Facts) -> tuple[str, ...]:
    """The same for people: a line for each value, indented where it does not decide."""
    about = ", ".join(f"{field} {value}" for field, value in zip(FIELDS, facts, strict=True) if value)
    head = f"Limits for {about or 'anything'}:"
    return (head, *(_line(each) for each in explained)) if explained else (head, "  none")


def _values(policy: Policy, applied: tuple[Effective, ...], smallest: Values, quantity: str) -> Iterator[Explained]:
    for limit in applied:
        path = ("limits", limit.limit_number, "cases", limit.case_number)
        case = policy.traffic.limits[limit.limit_number].cases[limit.case_number]
        value = getattr(case, quantity)
        if value is None or value is False:
            continue
        yield Explained(
            quantity=quantity,
            value=value,
            limit=limit.limit,
            case=limit.case_number + 1,
            place=str(policy.place(*path, quantity)),
            kept_by="sender" if quantity in SENDERS else "router",
            counter=limit.key,
            decides=_decides(limit.values, smallest, quantity),
            **_source(case),
        )


def _decides(values: Values, smallest: Values, quantity: str) -> bool:
    if quantity == "burst":
        return (values.message_rate, values.burst) == (smallest.message_rate, smallest.burst)
    return bool(getattr(values, quantity) == getattr(smallest, quantity))


def _source(case: Case) -> dict[str, str]:
    return {"url": case.citation.url, "date": case.citation.date} if case.citation else {}


def _beaten(value: Explained, deciding: Explained | None) -> Explained:
    if deciding is None:
        why = "it belongs to a message_rate that does not decide"
    elif value.decides:
        why = f"the same as {deciding.limit}"
    elif value.quantity == "burst":
        why = f"{deciding.limit} has the least message_rate"
    else:
        why = f"{deciding.limit} allows less: {deciding.value}"
    if value.quantity == "message_rate" and value.counter.partition("|")[2] != _fields(deciding):
        why += "; but it counts other mail too, and may be used up first"
    return msgspec.structs.replace(value, decides=False, why_not=why)


def _fields(deciding: Explained | None) -> str:
    return deciding.counter.partition("|")[2] if deciding else ""


def _line(each: Explained) -> str:
    said = f"{each.limit}, case {each.case}, {each.place}"
    source = f" [{each.url}, {each.date}]" if each.url else ""
    if each.decides:
        return f"  {each.quantity} {each.value}: {said}{source}; kept by the {each.kept_by}"
    return f"      not {each.value}: {said}{source}: {each.why_not}"
