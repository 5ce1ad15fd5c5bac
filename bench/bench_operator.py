"""The operator at scale: a real API server and etcd with many addresses and pools, and the operator's own process.

    PYTHONPATH=tests python bench/bench_operator.py [--addresses 1000] [--pools 200] [--minutes 3] [--profile FILE]

What is real: kube-apiserver, etcd, the resource types, the operator's process, the log's process, DNS over UDP. What stands in:
the bench for the kubelet (it says of each Deployment that its pod is ready), and for routers (it writes `mail.stats`).
Calls are counted by the API server's audit log, so that those of the watching library count too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.types import PatchType
from prometheus_client.parser import text_string_to_metric_families

from mailfleet_core.bus import topics
from mailfleet_core.bus.embedded import EmbeddedBus
from mailfleet_core.model import reputation, stats
from mailfleet_core.model.stats import PoolStats, SourceStats, Stats, TenantStats, Trouble
from mailfleet_operator.shell import types_command
from mailfleet_operator.shell.cluster import ADDRESS, DEPLOYMENT, POOL
from ports import free_port
from support.control_plane import ControlPlane
from support.dns_server import DnsServer
from support.embedded_bus import embedded_bus
from support.operators import KINDS, TEMPLATE

NAMESPACE, LANES = "mail", 2048
IDLE_SECONDS, BUSY_SECONDS = 25.0, 5.0
"""A router speaks of a partition this often when nothing, and when something has changed."""
COOLDOWN_SECONDS = 30
CHANGED = 100
TENANTS, TROUBLES = 200, 40
"""In each partition's record."""
FINE = tuple(1000.0 if kind == reputation.DELIVERED else 0.0 for kind in range(6))
BLOCKED = tuple({reputation.DELIVERED: 10.0, reputation.BLOCKED: 900.0}.get(kind, 0.0) for kind in range(6))
READY = {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 1}}


class Member(NamedTuple):
    """A SendingIP of the bench."""

    name: str
    address: str
    pool: str
    spare: bool


def members(addresses: int, pools: int) -> list[Member]:
    """The same number for each pool, the last one of each a spare."""
    each = addresses // pools
    return [
        Member(f"ip-{n:04}", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", f"pool-{n // each:03}", n % each == each - 1)
        for n in range(pools * each)
    ]


# --- what stands in for routers --------------------------------------------------------------------------------------------


class Routers:
    """Writes the statistics of all queue partitions, each with every source, as routers do."""

    def __init__(self, bus: EmbeddedBus, fleet: list[Member], partitions: int) -> None:
        self._bus, self._fleet, self._partitions = bus, [each for each in fleet if not each.spare], partitions
        self.busy = False
        """Mail flows: figures change all the time."""
        self.sour: frozenset[str] = frozenset()
        """Sources that are blocked everywhere."""
        self.paused = False
        self._sent, self._began = 0, time.time()

    async def talk(self) -> None:
        """Until cancelled; partitions one after another, as they would come."""
        while True:
            for number in range(self._partitions):
                began = time.monotonic()
                if not self.paused:
                    await self.say(number)
                pause = (BUSY_SECONDS if self.busy else IDLE_SECONDS) / self._partitions
                await asyncio.sleep(max(0.0, began + pause - time.monotonic()))

    async def say(self, number: int) -> None:
        """One partition's record."""
        self._sent += self.busy
        sources = tuple(self._source(each.name) for each in self._fleet)
        pools = tuple(PoolStats(name, 100 + self._sent, 10, 0.0, 5.0) for name in sorted({m.pool for m in self._fleet}))
        said = Stats(
            number, "bench", time.time(), pools, sources, self._tenants, self._troubles(number), partitions=self._partitions
        )  # fmt: skip
        await self._bus.append(topics.STATS, 0, stats.key(number), stats.encode(said))

    def _source(self, name: str) -> SourceStats:
        weights = BLOCKED if name in self.sour else FINE
        return SourceStats(name, 2, 1.0, self._sent, -1, weights, tuple(map(int, weights)))

    @property
    def _tenants(self) -> tuple[TenantStats, ...]:
        return tuple(TenantStats(f"tenant-{number:03}", FINE, tuple(map(int, FINE))) for number in range(TENANTS))

    def _troubles(self, number: int) -> tuple[Trouble, ...]:
        """Each partition has sites of its own."""
        own = self._fleet[number % len(self._fleet) :][:TROUBLES]
        until = self._began + 3600.0
        return tuple(
            Trouble(each.name, f"site-{number}", stats.SLOWED, until, "too-fast", "450 slower", self._began)
            for each in own
        )


# --- what stands in for kubelets -------------------------------------------------------------------------------------------


class Kubelets:
    """Says of every Deployment that its pod is ready."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.ready: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def work(self) -> None:
        """Until cancelled."""
        async for change, found in self._client.watch(KINDS[DEPLOYMENT], namespace=NAMESPACE):
            body = found.to_dict()
            name = body["metadata"]["name"]
            if change == "DELETED":
                self.ready.discard(name)
            elif not (body.get("status") or {}).get("readyReplicas"):
                task = asyncio.create_task(self._serve(name))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: str) -> None:
        kind = KINDS[DEPLOYMENT].Status
        await self._client.patch(kind, name, READY, namespace=NAMESPACE, patch_type=PatchType.MERGE)
        self.ready.add(name)


# --- the operator and what is seen of it -----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """The operator at one moment."""

    at: float
    cpu: float
    rss_mib: float
    looks: dict[float, float]
    """Buckets of the length of a look at a pool: upper border in seconds → looks at most that long."""
    counts: Counter[str]
    """Looks by kind."""
    calls: Counter[str]
    """Of the API server's audit log: verb and resource → requests."""


class Process:
    """The operator's process."""

    def __init__(self, config: Path, plane: ControlPlane, profile: str) -> None:
        self._config, self._plane, self._profile = config, plane, profile
        self._port, self._number = free_port(), 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns at once."""
        self._number += 1
        profile = ["-m", "cProfile", "-o", f"{self._profile}.{self._number}"] if self._profile else []
        words = ["--config", str(self._config), "--http", f"127.0.0.1:{self._port}", "--instance", "operator-a"]
        with (self._config.parent / "operator.log").open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *profile, "-m", "mailfleet_operator", *words, stdout=out, stderr=out
            )

    async def stop(self) -> None:
        """As by SIGTERM."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()

    async def seen(self) -> Seen:
        """Everything at this moment."""
        assert self._process is not None
        metrics = await asyncio.to_thread(self._metrics)
        looks = {float(of["le"]): value for of, value in metrics["mailfleet_operator_reconcile_seconds_bucket"]
                 if of["kind"] == "pool"}  # fmt: skip
        counts = Counter(
            {of["kind"]: int(value) for of, value in metrics["mailfleet_operator_reconcile_seconds_count"]}
        )
        pid = self._process.pid
        calls = await asyncio.to_thread(self._plane.calls, "operator")
        return Seen(time.monotonic(), cpu_seconds(pid), rss_mib(pid), looks, counts, calls)

    async def counts(self) -> Counter[str]:
        """Looks by kind; empty while it cannot be asked."""
        try:
            metrics = await asyncio.to_thread(self._metrics)
        except OSError:
            return Counter()
        return Counter({of["kind"]: int(n) for of, n in metrics.get("mailfleet_operator_reconcile_seconds_count", [])})

    def _metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found


def cpu_seconds(pid: int) -> float:
    """That a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def quantile(share: float, before: dict[float, float], after: dict[float, float]) -> float:
    """Seconds, as Prometheus' histogram_quantile has it."""
    counts = [(border, after[border] - before.get(border, 0.0)) for border in sorted(after)]
    rank, low, below = share * counts[-1][1], 0.0, 0.0
    for border, count in counts:
        if count >= rank and count > below:
            return low + (border - low) * (rank - below) / (count - below) if border != float("inf") else low
        low, below = border, count
    return 0.0


def tell(title: str, before: Seen, after: Seen) -> None:
    """Print what happened between two moments."""
    minutes = (after.at - before.at) / 60
    calls = after.calls - before.calls
    looks = after.counts - before.counts
    p50, p99 = (quantile(share, before.looks, after.looks) * 1000 for share in (0.5, 0.99))
    busy = (after.cpu - before.cpu) / (after.at - before.at)
    print(f"{title}: {minutes * 60:.0f} s, {after.rss_mib:.0f} MiB resident, {busy:.1%} of a core")
    print(f"  looks a minute: {'  '.join(f'{kind} {count / minutes:.0f}' for kind, count in sorted(looks.items()))}"
          f"; at a pool p50 {p50:.1f} ms, p99 {p99:.1f} ms")  # fmt: skip
    print(f"  API calls a minute: {calls.total() / minutes:.0f}")
    for what, count in calls.most_common(8):
        print(f"    {count / minutes:8.1f} {what}")
    sys.stdout.flush()


# --- the run ---------------------------------------------------------------------------------------------------------------


class Bench(NamedTuple):
    """Everything that runs."""

    fleet: list[Member]
    client: AsyncClient
    routers: Routers
    kubelets: Kubelets
    process: Process


async def fill(client: AsyncClient, fleet: list[Member]) -> None:
    """Make all resources."""
    await client.create(KINDS["Namespace"].from_dict(body("v1", "Namespace", NAMESPACE)))
    bodies = []
    for pool in sorted({each.pool for each in fleet}):
        own = [{"name": each.name} for each in fleet if each.pool == pool and not each.spare]
        spares = [each.name for each in fleet if each.pool == pool and each.spare]
        scaling = {"cooldownSeconds": COOLDOWN_SECONDS}
        bodies.append(resource(POOL, pool, egress={"mode": "PodNetwork"}, sources=own, spares=spares, scaling=scaling))
    bodies += [resource(ADDRESS, m.name, address=m.address, hostname=f"{m.name}.example.org") for m in fleet]
    places = asyncio.Semaphore(20)

    async def make(each: dict[str, Any]) -> None:
        async with places:
            await client.create(KINDS[each["kind"]].from_dict(each))

    await asyncio.gather(*map(make, bodies))


def body(version: str, kind: str, name: str) -> dict[str, Any]:
    """The head of an object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """One of ours."""
    made = body("mailfleet.dev/v1alpha1", kind, name)
    made["metadata"]["namespace"] = NAMESPACE
    return {**made, "spec": spec}


def zone(fleet: Iterable[Member]) -> dict[tuple[str, str], tuple[int, list[str]]]:
    """Every address has its PTR."""
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for each in fleet:
        host = f"{each.name}.example.org"
        found[".".join(reversed(each.address.split("."))) + ".in-addr.arpa", "PTR"] = (300, [f"{host}."])
        found[host, "A"] = (300, [each.address])
    return found


@contextlib.asynccontextmanager
async def running(options: argparse.Namespace, directory: Path) -> AsyncIterator[Bench]:
    """All but the operator."""
    fleet = members(options.addresses, options.pools)
    with ControlPlane(audit=True) as plane:
        await asyncio.to_thread(types_command.apply, str(plane.kubeconfig))
        sized = {"queue_partitions": options.partitions, "lanes": LANES}
        async with DnsServer(zone(fleet)) as dns, embedded_bus(directory / "log", **sized) as log_process:
            client = AsyncClient(config=KubeConfig.from_file(str(plane.kubeconfig)), namespace=NAMESPACE)
            await fill(client, fleet)
            routers = Routers(await log_process("bench"), fleet, options.partitions)
            process = Process(settings(directory, plane, dns.port, sized), plane, options.profile)
            bench = Bench(fleet, client, routers, Kubelets(client), process)
            tasks = [asyncio.create_task(each) for each in (routers.talk(), bench.kubelets.work())]
            try:
                yield bench
            finally:
                await process.stop()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def settings(directory: Path, plane: ControlPlane, dns: int, sized: dict[str, int]) -> Path:
    """The operator's settings file."""
    (directory / "sender.yaml").write_text(yaml.safe_dump(TEMPLATE))
    path = directory / "mailfleet.toml"
    path.write_text(
        f'[bus]\ndirectory = "{directory}/log"\n' + "".join(f"{key} = {value}\n" for key, value in sized.items())
        + f'[dns]\nnameservers = ["127.0.0.1:{dns}"]\n'
        + f'[operator]\nnamespace = "{NAMESPACE}"\nkubeconfig = "{plane.as_user("operator")}"\n'
        + f'template = "{directory}/sender.yaml"\n'
    )  # fmt: skip
    return path


async def states(client: AsyncClient) -> Counter[str]:
    """How many addresses are in each state."""
    found = client.list(KINDS[ADDRESS], namespace=NAMESPACE)
    return Counter([(each.to_dict().get("status") or {}).get("state", "") async for each in found])


async def until(bench: Bench, state: str, count: int, seconds: float) -> float:
    """Wait until so many addresses are in a state; how long that took."""
    began = time.monotonic()
    while (now := await states(bench.client))[state] < count:
        if time.monotonic() > began + seconds:
            raise SystemExit(f"only {dict(now)} after {seconds:.0f} s, {count} should be {state}")
        await asyncio.sleep(1)
    return time.monotonic() - began


async def begin(bench: Bench) -> None:
    """From nothing until every source sends."""
    own = sum(1 for each in bench.fleet if not each.spare)
    await bench.process.start()
    took = await until(bench, "Active", own, 600)
    print(f"from nothing to {own} sources that are ready to send: {took:.0f} s", flush=True)
    while len(bench.kubelets.ready) < own:
        await asyncio.sleep(1)


async def new_leader(bench: Bench) -> None:
    """Another process takes all of it over, and looks at everything once."""
    bench.routers.paused = True
    await bench.process.stop()
    pools = len({each.pool for each in bench.fleet})
    spares = sum(1 for each in bench.fleet if each.spare)
    began = time.monotonic()
    await bench.process.start()
    while (found := await bench.process.counts())["pool"] < pools or found["address"] < spares:
        await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    after = await bench.process.seen()
    cost = f"{after.cpu:.1f} s of CPU, {after.rss_mib:.0f} MiB"
    print(f"a new process has looked at everything {seconds:.1f} s after its start: {cost}")
    bench.routers.paused = False


async def watch(bench: Bench, title: str, minutes: float) -> None:
    """Let time pass, and tell."""
    before = await bench.process.seen()
    await asyncio.sleep(minutes * 60)
    tell(title, before, await bench.process.seen())


async def change(bench: Bench) -> None:
    """Some sources are blocked everywhere at once."""
    own = [each.name for each in bench.fleet if not each.spare]
    bench.routers.sour = frozenset(own[:: max(1, len(own) // CHANGED)][:CHANGED])
    before = await bench.process.seen()
    took = await until(bench, "Quarantined", len(bench.routers.sour), 300)
    tell(
        f"{len(bench.routers.sour)} addresses become quarantined within {took:.0f} s",
        before,
        await bench.process.seen(),
    )


async def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="mailfleet-operator-") as directory:
        async with running(options, Path(directory)) as bench:
            try:
                await begin(bench)
                await asyncio.sleep(COOLDOWN_SECONDS + 15)
                await watch(bench, "at rest, no mail", options.minutes)
                bench.routers.busy = True
                await asyncio.sleep(10)
                await watch(bench, "mail flows by every source", options.minutes)
                await change(bench)
                await new_leader(bench)
            finally:
                if options.log:
                    Path(options.log).write_bytes((Path(directory) / "operator.log").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=int, default=1000)
    parser.add_argument("--pools", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=64, help="of the queue: each is spoken of with every source")
    parser.add_argument("--minutes", type=float, default=3, help="of each of the steady phases")
    parser.add_argument("--profile", default="", help="file for cProfile's figures of the operator's main thread")
    parser.add_argument("--log", default="", help="where to keep what the operator printed")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
