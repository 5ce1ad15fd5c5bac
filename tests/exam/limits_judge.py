"""The judge of limits: from the sink's book of connections and messages, what was too much, and how a block was answered.

Pure: lines in, verdict out. What is exact where:

- Of (source, site) the sender is the only keeper, and the sink sees what it does: every window of every length is checked,
  with the tolerance of `exam.windows` for the way from the sender's clock to the kernel's.
- Of a site the router is the keeper, and it counts when it hands a message to a sender, which may keep it for a while. In
  any window there arrive at most those that lay in senders' hands at its begin, `site_window`, and those handed out in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from exam.judge import Kill
from exam.receivers import BY_NAME, Block, Receiver
from exam.windows import is_above, most_above, most_at_once

Line = dict[str, Any]
PAUSED_WITHIN_SECONDS = 10.0
"""From the reply that reaches a rule's threshold."""
PAUSE_SECONDS = 300.0
"""The shortest pause there is (`backoff.MIN_PAUSE_SECONDS`)."""
PROBE_SECONDS = 60.0
"""Between a probe and the next message: the floor from which the rate grows again."""
PROBED_WITHIN_SECONDS = PROBE_SECONDS + 20.0
"""After the end of a pause, or of a router's life: a new owner starts with an empty bucket, and takes over first."""


@dataclass
class Path:
    """What one source did at one site."""

    messages: list[float] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    per_connection: dict[int, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class LimitsVerdict:
    """What the sink saw against what was allowed."""

    faults: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    """For people: the worst of each limit."""
    messages: int = 0


def judge_limits(
    lines: Iterable[Line], script: Sequence[Block] = (), kills: Sequence[Kill] = (), until: float = 0.0
) -> LimitsVerdict:
    """The verdict; `until`: when the run ended, for a pause whose end lies beyond it."""
    book = sorted(lines, key=lambda line: line["at"])
    verdict = LimitsVerdict()
    paths = _paths(book)
    refused = Counter(
        f"{line['source']} at {line['site']}: {line['what']}" for line in book if line["kind"] == "violation"
    )
    verdict.faults += [f"the sink refused {what}, {count} times" for what, count in sorted(refused.items())]
    for (source, site), path in sorted(paths.items()):
        verdict.messages += len(path.messages)
        _judge_path(verdict, f"{source} at {site}", path, BY_NAME[site])
    for site in sorted({site for _, site in paths}):
        together = [at for (_, where), path in paths.items() if where == site for at in path.messages]
        _judge_site(verdict, together, BY_NAME[site])
    for block in script:
        _judge_block(verdict, book, block, kills, until)
    return verdict


def after_the_pause(lines: Iterable[Line], block: Block, kills: Sequence[Kill] = ()) -> list[float]:
    """When the blocked source sent again: the probe first."""
    book = sorted(lines, key=lambda line: line["at"])
    reached = _reached_at(_hits(book, block), block, kills)
    return [] if reached is None else _after(book, block, reached + PAUSE_SECONDS)


def _paths(book: Sequence[Line]) -> dict[tuple[str, str], Path]:
    paths: dict[tuple[str, str], Path] = defaultdict(Path)
    ends = {line["connection"]: line["at"] for line in book if line["kind"] == "close"}
    for line in book:
        path = paths[line["source"], line["site"]]
        if line["kind"] == "mail":
            path.messages.append(line["at"])
            path.per_connection[line["connection"]] += 1
        elif line["kind"] == "connect":
            path.connects.append(line["at"])
            path.spans.append((line["at"], ends.get(line["connection"], float("inf"))))
    return paths


def _judge_path(verdict: LimitsVerdict, who: str, path: Path, receiver: Receiver) -> None:
    limits = receiver.limits
    rate, burst = limits.messages_per_second, limits.burst
    if is_above(path.messages, rate, burst):
        verdict.faults.append(f"message rate of {who}: {most_above(path.messages, rate, burst):.2f} too many")
    if is_above(path.connects, limits.connections_per_second, 1):
        above = most_above(path.connects, limits.connections_per_second, 1)
        verdict.faults.append(f"connection rate of {who}: {above:.2f} too many")
    at_once = most_at_once(path.spans)
    if at_once > limits.concurrency:
        verdict.faults.append(f"concurrency of {who}: {at_once} of {limits.concurrency}")
    most = max(path.per_connection.values(), default=0)
    if most > limits.messages_per_connection:
        verdict.faults.append(f"messages on a connection of {who}: {most} of {limits.messages_per_connection}")
    verdict.facts.append(
        f"{who:20} {len(path.messages):5} messages, the nearest {_early(path.messages, rate, burst):5.1f} ms early;"
        f" {len(path.connects):4} connections, {_early(path.connects, limits.connections_per_second, 1):5.1f} ms;"
        f" at once {at_once} of {limits.concurrency}; on one {most:2} of {limits.messages_per_connection}"
    )


def _early(instants: Sequence[float], per_second: float, burst: float) -> float:
    """By how much the tightest window is too short, in milliseconds; 0.0: none is."""
    return max(0.0, most_above(instants, per_second, burst)) / per_second * 1000


def _judge_site(verdict: LimitsVerdict, instants: Sequence[float], receiver: Receiver) -> None:
    allowed = 1 + receiver.site_window
    if is_above(instants, receiver.site_per_second, allowed):
        above = most_above(instants, receiver.site_per_second, allowed)
        verdict.faults.append(f"message rate of all at {receiver.name}: {above:.2f} too many")
    verdict.facts.append(
        f"{'all at ' + receiver.name:20} {len(instants):5} messages, worst window"
        f" {most_above(instants, receiver.site_per_second, 1):+6.2f}, of which {receiver.site_window} may have been in hand"
    )


def _hits(book: Sequence[Line], block: Block) -> list[float]:
    return [line["at"] for line in _messages(book, block) if line["block"]]


def _reached_at(hits: Sequence[float], block: Block, kills: Sequence[Kill]) -> float | None:
    """When the threshold was reached. A new owner counts anew, so hits before a router's death are none."""
    count = 0
    for before, at in pairwise([float("-inf"), *hits]):
        count = 1 if any(before < kill.at <= at for kill in kills) else count + 1
        if count == block.threshold:
            return at
    return None


def _messages(book: Sequence[Line], block: Block) -> list[Line]:
    who = (block.source, block.site)
    return [line for line in book if line["kind"] == "mail" and (line["source"], line["site"]) == who]


def _after(book: Sequence[Line], block: Block, at: float) -> list[float]:
    return [line["at"] for line in _messages(book, block) if line["at"] >= at]


def _judge_block(
    verdict: LimitsVerdict, book: Sequence[Line], block: Block, kills: Sequence[Kill], until: float
) -> None:
    """Paused within ten seconds of the threshold, nothing but a probe after the pause, then more."""
    who = f"{block.source} at {block.site}"
    mails = [line for line in book if line["kind"] == "mail" and line["site"] == block.site]
    hits = _hits(book, block)
    reached = _reached_at(hits, block, kills)
    if reached is None:
        verdict.faults.append(f"the block of {who} was met {len(hits)} times: it has shown nothing")
        return
    paused = reached + PAUSED_WITHIN_SECONDS
    later = _after(book, block, paused)
    verdict.facts.append(
        f"block of {who}: {len(hits)} refused, the last {hits[-1] - reached:.1f} s after the threshold;"
        f" next messages {', '.join(f'{at - reached:+.1f}' for at in later[:4])} s after it"
    )
    early = [at for at in later if at < reached + PAUSE_SECONDS]
    if early:
        verdict.faults.append(
            f"{who} was not paused: {len(early)} more, {early[0] - reached:.1f} s after the threshold"
        )
    connected = [line["at"] for line in book if line["kind"] == "connect" and paused < line["at"] < reached + PAUSE_SECONDS
                 and (line["source"], line["site"]) == (block.source, block.site)]  # fmt: skip
    if connected:
        verdict.faults.append(f"{who} was paused but connected {len(connected)} times")
    during = min(until, reached + PAUSE_SECONDS)
    if not any(paused < line["at"] < during and line["source"] != block.source for line in mails):
        verdict.faults.append(f"the block of {who} stopped other sources there")
    elsewhere = (line for line in book if line["kind"] == "mail" and line["site"] != block.site)
    if not any(paused < line["at"] < during and line["source"] == block.source for line in elsewhere):
        verdict.faults.append(f"the block of {who} stopped it at other sites")
    _judge_probe(
        verdict,
        who,
        _after(book, block, reached + PAUSE_SECONDS),
        [reached + PAUSE_SECONDS, *(kill.at for kill in kills)],
        until,
    )


def _judge_probe(
    verdict: LimitsVerdict, who: str, later: Sequence[float], disturbed: Sequence[float], until: float
) -> None:
    """One message soon after the pause, the next ones a minute apart. `disturbed`: the pause's end and all kills."""
    over = disturbed[0]
    probed = later[0] if later else until
    if probed > PROBED_WITHIN_SECONDS + max(at for at in disturbed if at <= max(probed, over)):
        verdict.faults.append(f"{who} was not probed")
        return
    if is_above(later, 1 / PROBE_SECONDS, 1):
        verdict.faults.append(f"{who} came back too fast: {', '.join(f'{at - over:.1f}' for at in later[:4])}")
    if later and len(later) < 2 and until > max(probed, *disturbed) + PROBED_WITHIN_SECONDS:
        verdict.faults.append(f"{who} did not go on after its probe")
