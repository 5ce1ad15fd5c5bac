"""Limits on real parts: six sources, four receivers that count and block, three routers that are killed at random.

`python -m exam.limits --bus embedded|kafka --seconds N --limits policy|settings`. The books and a report are left in the
output directory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exam import receivers
from exam.behaviours import DOMAIN, REPORTS
from exam.chaos import Chaos
from exam.judge import Verdict, judge
from exam.limits_judge import LimitsVerdict, after_the_pause, judge_limits
from exam.receivers import RECEIVERS, SHARES, Block
from exam.stage import Loading, Say, Stage, environment, loading
from support import addresses
from support.kafka import kafka_broker
from support.knot import knot
from support.mailfleet import fleet
from support.processes import Process

RECIPIENTS_PER_MAIL = 1.2
RETRY_SECONDS = [2.0, 4.0, 8.0, 15.0]
BLOCKS = (Block("ip-2", "mimecast", 5.0, 3, 200.0), Block("ip-5", "google", 8.0, 5, 200.0))
"""Their rules, `mimecast-reputation` and `google-address-blocked`, pause after so many in an hour and in ten minutes."""
WATCH_SECONDS = 2.0
HOT_SITE = "microsoft"
"""The one that may be divided into shards: it has most mail, and limits of all its sources together."""
SHARD_SECONDS = 70.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    bus: str = "kafka"
    seconds: float = 430.0
    """How long mail is handed in at most: less when the blocked sources are back before."""
    kill_seconds: float = 322.0
    """How long processes are killed: beyond the end of the pause. A new owner waits a minute before it probes again, so
    with kills to the last nobody could tell whether mail flows again."""
    limits: str = "policy"
    """`policy`: a traffic policy; `settings`: routes, which have limits but no back-off."""
    sources: int = 6
    counts: dict[str, int] = field(default_factory=lambda: {"ingest": 1, "router": 3, "sender": 2})
    interval: float = 22.0
    """Between the return of one process and the kill -9 of another, on average; 0: none is killed."""
    victims: tuple[str, ...] = ("router",)
    """Which services' processes are killed."""
    blocks: tuple[Block, ...] = BLOCKS
    seed: int = 4
    shards: tuple[int, ...] = ()
    """Into how many shards the hot site is divided, one number after the other; the last one stays."""

    @property
    def script(self) -> tuple[Block, ...]:
        """What the sink turns against: nothing where nobody backs off."""
        return self.blocks if self.limits == "policy" else ()

    @property
    def allowed_per_kill(self) -> float:
        """Copies that one killed sender may make: 1.5 × (rate through it × the receivers' accept time) + 2."""
        under_way = sum(SHARES[receiver.name] * receiver.accept_seconds for receiver in RECEIVERS)
        return 1.5 * under_way / self.counts["sender"] + 2

    @property
    def rate(self) -> float:
        """Mails a second."""
        return sum(SHARES.values()) / RECIPIENTS_PER_MAIL


@dataclass
class Outcome:
    """Both verdicts."""

    mail: Verdict
    limits: LimitsVerdict

    def faults(self) -> list[str]:
        """One line for each fault."""
        return [*self.mail.faults(), *self.limits.faults]


def run(plan: Plan, directory: Path, say: Say = print) -> Outcome:
    """One run; its books and its report are left in `directory`."""
    with ExitStack() as stack:
        scene = stack.enter_context(stage(plan, directory))
        broker = stack.enter_context(kafka_broker(directory / "kafka")) if plan.bus == "kafka" else None
        running = stack.enter_context(
            fleet(directory / "fleet", counts=plan.counts, broker=broker, more=scene.settings)
        )
        chaos = Chaos(running, directory / "kills.jsonl", say)
        count = int(plan.seconds * plan.rate)
        with loading(scene, running, count, plan.rate, "--weights", receivers.weights()) as load:
            if plan.interval:
                victims = [name for name in running.names if name.startswith(plan.victims)]
                chaos.start_at_random(victims, plan.interval, 1.0, random.Random(plan.seed))
            try:
                _watch(plan, scene, load, chaos)
            finally:
                chaos.stop()
            load.wait(say)
        scene.settle(say=say)
        scene.keep_events(running)
        until = time.time()
    return _conclude(plan, scene, chaos, until, say)


def _watch(plan: Plan, scene: Stage, load: Loading, chaos: Chaos) -> None:
    """Return when the load has ended; end the kills in time, and the load when all blocks are probed, and one has gone on."""
    began = time.monotonic()
    calm_at, divided = began + plan.kill_seconds, plan.shards[:1]
    while load.process.poll() is None:
        time.sleep(WATCH_SECONDS)
        now_divided = plan.shards[: 1 + int((time.monotonic() - began) / SHARD_SECONDS)]
        if now_divided != divided:
            divided = now_divided
            _write_policy(scene.directory, divided[-1])
        if time.monotonic() > calm_at:
            chaos.stop()
            again = [len(after_the_pause(scene.book("limits"), block, chaos.kills)) for block in plan.script]
            if again and min(again) >= 1 and max(again) >= 2:
                load.process.terminate()
                return


@contextmanager
def stage(plan: Plan, directory: Path) -> Iterator[Stage]:
    """Start the sink with limits and the DNS that leads to it."""
    directory.mkdir(parents=True, exist_ok=True)
    port = addresses.free_port()
    hosts = {host: addresses.loopback() for receiver in RECEIVERS for host in receiver.hosts}
    reports, reports_host = addresses.loopback(), f"mx.{REPORTS}.{DOMAIN}"
    names = {hosts[host]: receiver.name for receiver in RECEIVERS for host in receiver.hosts} | {reports: REPORTS}
    sources = {addresses.loopback(): name for name in receivers.source_names(plan.sources)}
    what = {"addresses": names, "port": port, "sources": sources, "script": [asdict(block) for block in plan.script]}
    (directory / "stage.json").write_text(json.dumps(what))
    command = [sys.executable, "-m", "exam.limits_sink", "--stage", str(directory / "stage.json"),
               "--log", str(directory / "sink.jsonl"), "--limits", str(directory / "limits.jsonl")]  # fmt: skip
    sink = Process("sink", command, directory / "sink.out", environment())
    zones = receivers.zones({**hosts, reports_host: reports})
    zones[f"{REPORTS}.{DOMAIN}"] = [f"MX 10 {reports_host}."]
    try:
        sink.wait_until_it_answers(reports, port)
        with knot(directory / "dns", zones, ttl=30) as server:
            settings = _settings(plan, directory, sources, port)
            yield Stage(directory, tuple(names), port, {"dns": {"nameservers": [server.nameserver]}, **settings})
    finally:
        sink.stop()


def _settings(plan: Plan, directory: Path, sources: dict[str, str], port: int) -> dict[str, Any]:
    egress = [
        {"name": name, "address": where, "ehlo_name": f"{name}.mailfleet.test"} for where, name in sources.items()
    ]
    pool = [{"source": name, "weight": 1} for name in sources.values()]
    stream = {"retry_seconds": RETRY_SECONDS, "expire_seconds": 3600.0, "delay_dsn_seconds": 0.0}
    settings: dict[str, Any] = {
        "bus": {"lanes": plan.sources},
        "source": egress,
        "pool": [{"name": "default", "sources": pool}],
        "stream": [{"name": "transactional", **stream}],
    }
    if plan.limits == "settings":
        return {**settings, "route": receivers.routes(port)}
    plain = {"name": "rest", "kind": "mx", "port": port, "tls": "off"}
    policy = _write_policy(directory, plan.shards[0] if plan.shards else 0)
    return {**settings, "route": [plain], "router": {"policy_file": str(policy)}}


def _write_policy(directory: Path, shards: int) -> Path:
    """The traffic policy, which routers read anew while they run."""
    policy = receivers.policy() | ({"sites": [{"site": HOT_SITE, "shards": shards}]} if shards else {})
    path, fresh = directory / "policy.yaml", directory / "policy.yaml.new"
    fresh.write_text(yaml.safe_dump(policy, sort_keys=False))
    fresh.replace(path)
    return path


def _conclude(plan: Plan, scene: Stage, chaos: Chaos, until: float, say: Say) -> Outcome:
    outcome = Outcome(
        judge(scene.book("load"), scene.book("sink"), chaos.kills, scene.book("events"), plan.allowed_per_kill),
        judge_limits(scene.book("limits"), plan.script, chaos.kills, until),
    )
    mail = outcome.mail
    lines = [
        f"limits by {plan.limits} on {plan.bus}: {'FAILED' if outcome.faults() else 'PASSED'}",
        f"  {mail.accepted} accepted, {mail.delivered} delivered, {mail.bounced} bounced, {len(mail.duplicates)} twice;"
        f" {len(chaos.kills)} killed; {outcome.limits.messages} messages seen",
        *(f"  {fact}" for fact in outcome.limits.facts),
        *(f"  FAULT {fault}" for fault in outcome.faults()),
    ]
    (scene.directory / "report.txt").write_text("\n".join(lines) + "\n")
    say("\n".join(lines))
    return outcome


def main() -> None:
    """Read the command line, run, and end with 1 when the run failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--bus", choices=("embedded", "kafka"), default="kafka")
    parser.add_argument("--limits", choices=("policy", "settings"), default="policy")
    parser.add_argument("--seconds", type=float, default=Plan().seconds)
    parser.add_argument("--interval", type=float, default=Plan().interval)
    parser.add_argument("--routers", type=int, default=3)
    parser.add_argument("--victims", default="router", help="services whose processes are killed, separated by commas")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--shards", default="", help=f"shards of {HOT_SITE}, one number after the other: 2,3,1")
    parser.add_argument("--output", type=Path, default=Path("var/limits"))
    chosen = parser.parse_args()
    counts = {"ingest": 1, "router": chosen.routers, "sender": 2}
    plan = Plan(
        chosen.bus, chosen.seconds, limits=chosen.limits, counts=counts, interval=chosen.interval,
        victims=tuple(chosen.victims.split(",")), seed=chosen.seed,
        shards=tuple(map(int, filter(None, chosen.shards.split(",")))),
    )  # fmt: skip
    directory = chosen.output / time.strftime(f"%Y%m%d-%H%M%S-{plan.bus}-{plan.limits}")
    outcome = run(plan, directory, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))
    sys.exit(bool(outcome.faults()))


if __name__ == "__main__":
    main()
