"""What `kubectl get senderpools,sendingips` shows: the statuses, and whether one is news enough to be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mailfleet_core.model.stats import Trouble
from mailfleet_operator.decisions import conditions
from mailfleet_operator.decisions.conditions import FALSE, TRUE, UNKNOWN, Verdict
from mailfleet_operator.decisions.lanes import Held
from mailfleet_operator.decisions.life import CHECKS, EGRESS, READY, SENDING, UNKNOWN_YET, Life, ready
from mailfleet_operator.decisions.preflight import Listing
from mailfleet_operator.decisions.resources import POOL_LABEL, Address, Pool
from mailfleet_operator.decisions.scaling import HOLDING, Memory, Spare
from mailfleet_operator.decisions.times import text_of

MOST_SITES = 10
MOST_CHARACTERS = 300
"""Of what a site said."""

FIGURES = frozenset({"score", "today", "inFlight", "waiting", "ready", "lastChecked", "observedGeneration"})
"""Parts of a status that alone are not worth a write at once."""
LOOKED_SECONDS = 3600.0
"""That an address was looked at again and found as before is written this often: at rest it is all that changes."""


class Figures(NamedTuple):
    """Of a source, from fresh statistics."""

    score: float
    in_flight: int
    sent_today: int
    day_cap: int


class Look(NamedTuple):
    """Of an address, from its probes."""

    checks: Mapping[str, Verdict]
    at: float = 0.0
    listings: Sequence[Listing] = ()
    seen: str = ""


class Present(NamedTuple):
    """A source as it is to be from now on."""

    life: Life
    held: Held = Held()
    lanes_changed_at: float = 0.0
    warmup: tuple[str, float] = ("", 0.0)
    """Its plan, and since when it goes through it; 0: not yet."""


def of_address(
    address: Address,
    pool: str,
    present: Present,
    look: Look,
    figures: Figures | None,
    troubles: Sequence[Trouble],
    now: float,
) -> dict[str, Any]:
    """The status of a SendingIP."""
    life, held, lanes_changed_at, warmup = present
    verdicts = {kind: look.checks.get(kind, UNKNOWN_YET) for kind in CHECKS} | {READY: ready(life)}
    if EGRESS not in look.checks:
        verdicts[EGRESS] = Verdict(UNKNOWN, "NotSeen", "nobody has said yet which address it sees")
    status: dict[str, Any] = {
        "observedGeneration": address.generation,
        "address": address.spec.address or address.spec.address6,
        "pool": pool,
        "state": life.state,
        "since": text_of(life.since),
        "cause": life.cause,
        "improvedAt": text_of(life.improved_at),
        "warmupPlan": warmup[0],
        "warmupStartedAt": text_of(warmup[1]),
        "lanes": list(held.lanes),
        "laneSummary": _lanes(held),
        "lanesChangedAt": text_of(lanes_changed_at),
        "releasing": [{"lane": lane, "since": text_of(since)} for lane, since in held.releasing],
        "lastChecked": text_of(look.at),
        "seenAddress": look.seen,
        "blocklists": [_listing(each) for each in look.listings],
        "sites": [_site(trouble) for trouble in troubles[:MOST_SITES]],
        "conditions": conditions.merged(address.status.conditions, verdicts, address.generation, now),
    }
    if figures is not None:
        status |= {"score": round(figures.score), "inFlight": figures.in_flight, "today": _today(figures)}
    else:
        status |= {key: address.raw_status[key] for key in ("score", "inFlight", "today") if key in address.raw_status}
    return without_empty(status)


def _lanes(held: Held) -> str:
    own = ",".join(map(str, held.lanes))
    return f"{own} (-{','.join(str(lane) for lane, _ in held.releasing)})" if held.releasing else own


def _today(figures: Figures) -> str:
    return f"{figures.sent_today}/{figures.day_cap}" if figures.day_cap >= 0 else str(figures.sent_today)


def _listing(listing: Listing) -> dict[str, Any]:
    return {"zone": listing.zone, "verdict": listing.verdict, "answer": listing.answer}


def _site(trouble: Trouble) -> dict[str, Any]:
    told = {
        "site": trouble.site or "*", "state": trouble.state, "until": text_of(trouble.until), "rule": trouble.rule,
        "reply": trouble.reply[:MOST_CHARACTERS],
    }  # fmt: skip
    return without_empty(told)


class Senders(NamedTuple):
    """Of a pool: how many there are to be, and how many are ready."""

    desired: int
    ready: int


class PoolNow(NamedTuple):
    """A pool as it is to be from now on."""

    lives: Mapping[str, Life]
    scores: Mapping[str, float]
    """By source; of fresh statistics."""
    senders: Senders
    memory: Memory
    demand: tuple[int, int] | None
    """(waiting, ready), of fresh statistics."""
    verdicts: Mapping[str, Verdict]


def of_pool(pool: Pool, present: PoolNow, now: float) -> dict[str, Any]:
    """The status of a SenderPool."""
    lives, scores, senders, memory, demand, verdicts = present
    usable = sum(1 for life in lives.values() if life.state in SENDING)
    status: dict[str, Any] = {
        "observedGeneration": pool.generation,
        "replicas": senders.desired,
        "desiredReplicas": senders.desired,
        "readyReplicas": senders.ready,
        "selector": f"{POOL_LABEL}={pool.name}",
        "sourceSummary": f"{usable}/{len(lives)}",
        "senderSummary": f"{senders.ready}/{senders.desired}",
        "shortageSince": text_of(memory.shortage_since),
        "lastSpareTime": text_of(memory.last_spare_at),
        "spares": [_spare(spare) for spare in memory.spares],
        "conditions": conditions.merged(pool.status.conditions, verdicts, pool.generation, now),
    }
    if demand is not None:
        status |= {"waiting": demand[0], "ready": demand[1]}
    if scores:
        status["score"] = round(min(scores.values()))
    return without_empty(status, keep=("replicas", "desiredReplicas", "readyReplicas", "waiting", "ready"))


def _spare(spare: Spare) -> dict[str, Any]:
    told = {"name": spare.name, "takenAt": text_of(spare.taken_at), "neededAt": text_of(spare.needed_at)}
    return without_empty({**told, "reason": spare.why})


def pool_ready(pool: Pool, lives: Mapping[str, Life], senders: Senders, trouble: Iterable[str]) -> Verdict:
    """The condition Ready of a pool."""
    wrong = "; ".join(trouble)
    if wrong:
        return Verdict(FALSE, "SourcesMissing", wrong)
    if pool.spec.paused:
        return Verdict(TRUE, "Paused", f"{senders.ready}/{senders.desired} senders ready; nothing is scaled")
    sending = sum(1 for life in lives.values() if life.state in SENDING)
    if not sending:
        reasons = (
            ", ".join(sorted({f"{name}: {life.cause or life.state}" for name, life in lives.items()})) or "it has none"
        )
        return Verdict(FALSE, "NoUsableSource", f"no source may send ({reasons})")
    if senders.ready < senders.desired:
        return Verdict(FALSE, "WaitingForSenders", f"{senders.ready}/{senders.desired} senders ready")
    return Verdict(TRUE, "AllReady", f"{senders.ready}/{senders.desired} senders ready")


def reputation(lives: Mapping[str, Life], scores: Mapping[str, float]) -> Verdict:
    """The condition ReputationHealthy of a pool."""
    if not scores:
        return Verdict(UNKNOWN, "NoStatistics", "no fresh statistics")
    bad = sorted(name for name, life in lives.items() if life.state in ("Slow", "Quarantined"))
    if bad:
        return Verdict(FALSE, "Degraded", ", ".join(f"{name} {scores.get(name, 100):.0f}" for name in bad))
    return Verdict(TRUE, "Healthy", f"the lowest score is {min(scores.values()):.0f}")


def without_empty(status: Mapping[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
    """Without texts and lists that say nothing; an instant that never was has no text."""
    return {key: value for key, value in status.items() if key in keep or value not in ("", [], None)}


def to_write(
    before: Mapping[str, Any], status: Mapping[str, Any], written_at: float, now: float, figures_seconds: float
) -> bool:
    """Is it worth a write? Figures alone only now and then, everything else at once."""
    if before == status:
        return False
    plain = {key: value for key, value in status.items() if key not in FIGURES}
    old = {key: value for key, value in before.items() if key not in FIGURES}
    if before.get("observedGeneration") != status.get("observedGeneration") or _calm(plain) != _calm(old):
        return True
    wait = LOOKED_SECONDS if _but_looked(before) == _but_looked(status) else figures_seconds
    return now - written_at >= wait


def _but_looked(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "lastChecked"}


def _calm(status: Mapping[str, Any]) -> dict[str, Any]:
    """Without the messages of conditions, which tell figures too, and what was only looked at again; of sites, who lets
    nothing in."""
    told = [{key: value for key, value in each.items() if key != "message"} for each in status.get("conditions", ())]
    spares = [{key: value for key, value in each.items() if key != "neededAt"} for each in status.get("spares", ())]
    holding = sorted(each["site"] for each in status.get("sites", ()) if each["state"] in HOLDING)
    return {**status, "conditions": told, "spares": spares, "sites": holding}
