"""How sources and tenants stand: answers counted while they come, judged now and then, and the last replies of each class."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.wire import DELIVERED, RecipientOutcome
from mailfleet_router.decisions.shaping import reputation
from mailfleet_router.decisions.shaping.backoff import Change
from mailfleet_router.decisions.shaping.complaints import Complaints
from mailfleet_router.decisions.shaping.reputation import Counts, Standing, Tuning
from mailfleet_router.decisions.shaping.responses import Reading
from mailfleet_router.decisions.shaping.totals import NO_PART, Total, part
from mailfleet_router.decisions.shaping.values import Facts

WRITE_SECONDS = 60.0
"""Between two records of a key: what a takeover may forget."""
JUDGE_SECONDS = 60.0
MOST = 20_000
"""Keys kept; further ones are not counted until others are forgotten."""
TEXT = 300

_NEVER = float("inf")

Key = tuple[str, str, str]
"""As `reputation.keys` gives them."""
ELSEWHERE = ""
"""The site under which good answers of all sites without a name are counted of which nothing bad is known."""


class Reply(NamedTuple):
    """The newest reply of a class, and how many there were."""

    times: int
    at: float
    source: str
    rule: str
    text: str


class Stand:
    """One key."""

    __slots__ = (
        "counts", "decision", "due_at", "judged_at", "key", "part", "pending", "since", "standing", "touched",
        "urgent", "written_at",
    )  # fmt: skip

    def __init__(self, key: Key) -> None:
        self.key = key
        self.touched = False
        """Something was counted since the last look."""
        self.urgent = False
        """It is not to wait for its next judgement."""
        self.due_at = _NEVER
        """When it is to be judged next."""
        self.counts, self.standing = Counts(), Standing()
        self.part = NO_PART
        """What the total of its source or tenant has of it."""
        self.since = 0.0
        """When it came into its state; 0: under an earlier owner."""
        self.decision: reputation.Decision | None = None
        self.pending = [0] * 6
        self.judged_at, self.written_at = -JUDGE_SECONDS, -WRITE_SECONDS

    @property
    def score(self) -> float:
        """From 0 to 100, as it was judged last."""
        return self.decision.reading.score if self.decision else 100.0


class Standings:
    """All keys of one partition."""

    def __init__(self) -> None:
        self.stands: dict[Key, Stand] = {}
        self.replies: dict[str, dict[str, Reply]] = {}
        """Site → class → reply."""
        self.sources: dict[str, Total] = {}
        self.tenants: dict[str, Total] = {}
        """Over all sites."""
        self.doubtful: dict[Key, Stand] = {}
        """Those whose state is SLOW or worse."""
        self.complaints = Complaints()
        self._touched: list[Stand] = []
        self._due: list[tuple[float, Key]] = []
        """A heap; an entry counts when the key is still due then."""
        self._looked_at = 0.0
        self._written: list[tuple[str, bytes | None]] = []

    def state(self, kind: str, first: str, second: str) -> int:
        """GOOD where nothing is known."""
        found = self.stands.get((kind, first, second))
        return found.standing.state if found else reputation.GOOD

    def score(self, kind: str, first: str, second: str) -> float:
        """From 0 to 100, as it was judged last."""
        found = self.stands.get((kind, first, second))
        return found.score if found else 100.0

    def pairs(self) -> Iterator[tuple[tuple[str, str], float, int]]:
        """(source, site), score and state of each pair that was judged."""
        for (kind, source, site), stand in self.stands.items():
            if kind == "source|site" and site != ELSEWHERE and stand.decision is not None:
                yield (source, site), stand.decision.reading.score, stand.standing.state

    def count(self, facts: Facts, verdict: str, blame: str, block: bool) -> None:
        """An answer for one recipient."""
        kind = reputation.outcome(verdict, blame, block, feedback=True)
        if kind is not None:
            self.add(self.of(facts, verdict == DELIVERED), kind)

    def of(self, facts: Facts, good: bool) -> tuple[tuple[Stand, int], ...]:
        """Where an answer to `facts` is counted, each with the kind of one that was delivered. A site without a name is
        counted by itself from its first bad answer on: there are too many."""
        site, small = facts.site, not facts.provider
        if small and self.complaints.reports(site):
            small = False
        elif facts.provider:
            self.complaints.know(site, facts.provider)
        found = []
        for key in reputation.keys(facts.tenant, facts.stream, facts.source, site):
            of_site = key[0] != "tenant|stream"
            stand = self.stands.get(key)
            if stand is None and small and good and of_site:
                stand = self._stand((key[0], key[1], ELSEWHERE))
            elif stand is None:
                stand = self._stand(key)
            if stand is not None:
                # At one site, complaints are a share of what it took. Elsewhere only of what those took who report them.
                counted = of_site or self.complaints.reports(site)
                found.append((stand, reputation.DELIVERED if counted else reputation.OTHER))
        return tuple(found)

    def _stand(self, key: Key) -> Stand | None:
        stand = self.stands.get(key)
        if stand is None and len(self.stands) < MOST:
            stand = self.stands[key] = Stand(key)
        return stand

    def add(self, stands: tuple[tuple[Stand, int], ...], kind: int) -> None:
        """One more answer of this kind."""
        for stand, good in stands:
            stand.pending[good if kind == reputation.DELIVERED else kind] += 1
            self._touch(stand)

    def obey(self, providers: frozenset[str]) -> None:
        """The policy says of these that they report complaints."""
        if providers != self.complaints.providers:
            self.complaints.providers = providers
            for stand in self.stands.values():
                self._touch(stand)

    def complained(self, key: str, offset: int, complaint: Complaint, provider: str) -> bool:
        """A record of a complaint; False: it was there before. `provider`: of its site, if it has a name."""
        heard, site = self.complaints, complaint.site
        if provider:
            heard.know(site, provider)
        reported = heard.reports(site)
        offset = heard.hear(key, offset, complaint)
        if offset < 0:
            return False
        # A complaint about mail that was not counted would be a share of nothing.
        known = heard.first[site] <= complaint.delivered_at
        in_stream, at_site = heard.declared(site) or known, bool(provider) or known
        for name in reputation.keys(complaint.tenant, complaint.stream, complaint.source, site):
            stand = self._stand(name)
            counts = in_stream if name[0] == "tenant|stream" else at_site
            if stand is not None and counts and offset > stand.counts.heard:
                stand.pending[reputation.COMPLAINED] += 1
                stand.urgent = True
                self._touch(stand)
        if not reported:
            self.judge_site(site)
        return True

    def judge_site(self, site: str) -> None:
        """What is known of reporting there has changed: so do the totals."""
        for key, stand in self.stands.items():
            if key[2] == site and key[0] != "tenant|stream":
                self._touch(stand)

    def _touch(self, stand: Stand) -> None:
        if not stand.touched:
            stand.touched = True
            self._touched.append(stand)

    def replied(self, facts: Facts, reading: Reading, outcome: RecipientOutcome, now: float) -> None:
        """Remember a reply, to be shown."""
        at = self.replies.get(facts.site)
        if at is None:
            if len(self.replies) >= MOST:
                del self.replies[next(iter(self.replies))]
            at = self.replies[facts.site] = {}
        before = at.get(reading.reply_class)
        text = f"{outcome.code or outcome.phase} {outcome.enhanced} {outcome.text}"[:TEXT]
        at[reading.reply_class] = Reply(before.times + 1 if before else 1, now, facts.source, reading.rule, text)

    def tick(self, now: float, tuning: Tuning) -> list[tuple[Change, Facts]]:
        """Judge what has changed, and what is not good; the changes of sources at sites."""
        if now < self._looked_at:  # the clock was put back: what was due by the old time is due now
            self._touched = list(self.stands.values())
        self._looked_at = now
        touched, self._touched = self._touched, []
        for stand in touched:
            stand.touched = False
            due_at = now if stand.urgent else stand.judged_at + JUDGE_SECONDS
            self._plan(stand, due_at if now < due_at <= now + JUDGE_SECONDS else now)
        changes = []
        due, stands = self._due, self.stands
        while due and due[0][0] <= now:
            at, key = heappop(due)
            stand = stands[key]
            if stand.due_at == at:
                stand.due_at = _NEVER
                changes += self._judge(key, stand, now, tuning)
        self._written += self.complaints.changed(now)
        return changes

    def _plan(self, stand: Stand, at: float) -> None:
        if at < stand.due_at:
            stand.due_at = at
            heappush(self._due, (at, stand.key))

    def _judge(self, key: Key, stand: Stand, now: float, tuning: Tuning) -> list[tuple[Change, Facts]]:
        if any(stand.pending):
            stand.counts = reputation.observe_all(stand.counts, tuple(stand.pending), now)
            stand.pending = [0] * 6
        stand.standing, stand.decision = reputation.judge(stand.standing, stand.counts, now, tuning=tuning)
        stand.judged_at, stand.urgent = now, False
        self._sum_up(key, stand, now)
        if stand.standing.state >= reputation.SLOW:
            self.doubtful[key] = stand
        else:
            self.doubtful.pop(key, None)
        if stand.standing.state:  # of a longer silence only so much counts as clean
            self._plan(stand, now + reputation.STEP_SECONDS / 3)
        decision = stand.decision
        changed = decision.before != decision.after
        if changed:
            stand.since = now
        if changed or not 0 <= now - stand.written_at < WRITE_SECONDS:
            stand.written_at = now
            name = "\n".join(key)
            # All complaints that were read are in the counts: whoever reads these counts those that lie behind.
            stand.counts = msgspec.structs.replace(stand.counts, heard=self.complaints.read_to)
            self._written.append((f"counts|{name}", reputation.encode(stand.counts)))
            self._written.append((f"standing|{name}", reputation.encode(stand.standing)))
        if not changed or key[0] != "source|site":
            return []
        what = f"reputation {reputation.STATES[decision.after]}"
        return [(Change(what, f"reputation: {decision.reason}", 0.0, ""), Facts(source=key[1], site=key[2]))]

    def _sum_up(self, key: Key, stand: Stand, now: float) -> None:
        totals = {"source|site": self.sources, "tenant|site": self.tenants}.get(key[0])
        if totals is None or stand.decision is None:
            return
        total = totals.get(key[1])
        if total is None:
            total = totals[key[1]] = Total()
        after = part(stand.decision.reading, stand.standing.state, self.complaints.reports(key[2]), now)
        total.change(stand.part, after)
        stand.part = after

    def changed(self) -> Iterator[tuple[str, bytes | None]]:
        """Keys of `mail.site` and their new values since the last call."""
        written, self._written = self._written, []
        return iter(written)

    def value(self, kind: str, name: str) -> bytes | None:
        """`counts` or `standing` of a key as `changed` names it."""
        first, second, third = (*name.split("\n"), "", "", "")[:3]
        stand = self.stands.get((first, second, third))
        return reputation.encode(stand.counts if kind == "counts" else stand.standing) if stand else None

    def read(self, key: str, value: bytes) -> None:
        """A record of `mail.site`. Raises msgspec.DecodeError, ValidationError."""
        kind, _, name = key.partition("|")
        parts = name.split("\n")
        if kind not in ("counts", "standing") or len(parts) != 3:
            return
        stand = self.stands.setdefault((parts[0], parts[1], parts[2]), Stand((parts[0], parts[1], parts[2])))
        if kind == "counts":
            stand.counts = reputation.decode_counts(value)
        else:
            stand.standing = reputation.decode_standing(value)
            self._touch(stand)
