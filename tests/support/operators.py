"""Operators over a real API server and a log in memory, and what a person, a kubelet and routers do beside them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_global_resource
from lightkube.types import PatchType

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import reputation, stats, wire
from mailfleet_core.model.sources import SOURCE_KEY
from mailfleet_core.model.stats import PoolStats, SourceStats, Stats, TenantStats, Trouble
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsFile
from mailfleet_operator.decisions.preflight import Path as Way
from mailfleet_operator.settings import OperatorSettings
from mailfleet_operator.shell import cluster
from mailfleet_operator.shell.service import Operator
from support import certificates
from support.control_plane import ControlPlane

LANES = 8
KINDS: dict[str, Any] = {
    **cluster.KINDS,
    "Namespace": create_global_resource("", "v1", "Namespace", "namespaces"),
    "Webhook": create_global_resource(
        "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"
    ),
}
TEMPLATE = {
    "spec": {
        "containers": [
            {"name": "sender", "image": "mailfleet:test", "args": ["-m", "mailfleet_sender", "--http", "0.0.0.0:8080"]}
        ]
    }
}


class Kubernetes:
    """One namespace, as a person sees it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.namespace, self.kubeconfig = namespace, str(plane.kubeconfig)
        config = KubeConfig.from_file(self.kubeconfig)
        self.client = Client(config=config, namespace=namespace, field_manager="test")

    def create(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """Raises ApiError with what the API server says against it."""
        return dict(self.client.create(_object(kind, name, self.namespace, fields)))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Empty when there is none."""
        try:
            return dict(self.client.get(KINDS[kind], name, namespace=self.namespace).to_dict())
        except ApiError as error:
            if error.status.code != 404:
                raise
            return {}

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Of the namespace."""
        return [dict(each.to_dict()) for each in self.client.list(KINDS[kind], namespace=self.namespace)]

    def change(self, kind: str, name: str, **fields: Any) -> None:
        """A merge patch."""
        place = {} if kind == "Namespace" else {"namespace": self.namespace}
        self.client.patch(KINDS[kind], name, fields, patch_type=PatchType.MERGE, **place)

    def delete(self, kind: str, name: str) -> None:
        """Away with it."""
        self.client.delete(KINDS[kind], name, namespace=self.namespace)

    def serve(self, name: str) -> None:
        """What a kubelet would tell: the Deployment's sender is ready."""
        status = {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 1}}
        self.client.patch(KINDS["Deployment"].Status, name, status, namespace=self.namespace)


def _object(kind: str, name: str, namespace: str, fields: dict[str, Any]) -> Any:
    group = {"Webhook": "admissionregistration.k8s.io/v1", "Namespace": "v1"}.get(kind, "mailfleet.dev/v1alpha1")
    real = {"Webhook": "ValidatingWebhookConfiguration"}.get(kind, kind)
    about = {"name": name} | ({} if kind in ("Webhook", "Namespace") else {"namespace": namespace})
    return KINDS[kind].from_dict({"apiVersion": group, "kind": real, "metadata": about, **fields})


class Zone:
    """The DNS: every address has its PTR unless a test takes it away."""

    def __init__(self) -> None:
        self.hosts: dict[str, str] = {}
        """Address → name."""
        self.lost: set[str] = set()

    async def records(self, domain: str, kind: str) -> tuple[str, ...]:
        """See `Dns`."""
        if kind == "PTR":
            address = ".".join(reversed(domain.removesuffix(".in-addr.arpa").split(".")))
            return (self.hosts[address] + ".",) if address in self.hosts and address not in self.lost else ()
        return tuple(address for address, name in self.hosts.items() if name == domain)


async def no_way(*_: Any) -> Way:
    """Only senders know."""
    return Way()


class Mortal(Operator):
    """An operator that a test may kill."""

    def die(self) -> None:
        """As by SIGKILL: nothing is given back."""
        assert self._standing is not None
        self._standing.cancel()


class Fleet:
    """Operators over one log, and routers that say what the test says."""

    def __init__(self, kubernetes: Kubernetes, directory: Path) -> None:
        self.kubernetes, self.zone, self.log = kubernetes, Zone(), MemoryLog(1, LANES)
        self._directory = directory
        (directory / "sender.yaml").write_text(yaml.safe_dump(TEMPLATE))
        made = certificates.make(directory / "certificates", "127.0.0.1")
        (directory / "tls.crt").write_bytes(made.certificate.read_bytes())
        (directory / "tls.key").write_bytes(made.key.read_bytes())
        self.operators: list[Mortal] = []
        self.said: dict[str, Any] = {}

    async def operator(self, instance: str = "operator-a", **settings: Any) -> Mortal:
        """One more, started."""
        section = {
            "namespace": self.kubernetes.namespace, "kubeconfig": self.kubernetes.kubeconfig,
            "template": str(self._directory / "sender.yaml"), "webhook": "127.0.0.1:0",
            "webhook_directory": str(self._directory), "look_seconds": 0.2, "resync_seconds": 5.0, "settle_seconds": 1.0,
            "lease_seconds": 8.0, "renew_seconds": 6.0, "retry_seconds": 0.5, **settings,
        }  # fmt: skip
        bus = MemoryBus(self.log, instance)
        await bus.start()
        file = SettingsFile({"operator": section}, "test", {})
        context = Context(instance=instance, name="operator", settings=file, bus=bus, clock=SystemClock())
        made = Mortal(context, file.section("operator", OperatorSettings), self.zone, no_way)
        await made.start()
        self.operators.append(made)
        return made

    async def say(self, **parts: Any) -> None:
        """A record of statistics, of the only partition; what is not given is as it was said last."""
        self.said |= parts
        bus = MemoryBus(self.log, "router")
        await bus.start()
        said = Stats(0, "router-a", SystemClock().now(), partitions=1, **self.said)
        await bus.append(topics.STATS, 0, stats.key(0), stats.encode(said))

    @property
    def sources(self) -> dict[str, wire.Source]:
        """What the log says of sources now."""
        found: dict[str, wire.Source] = {}
        for record in self.log.records(topics.CONTROL, 0):
            if record.key.startswith(SOURCE_KEY):
                name = record.key.removeprefix(SOURCE_KEY).decode()
                found.pop(name, None)
                if record.value is not None:
                    found[name] = wire.decode(wire.Source, record.value)
        return found

    def address(self, name: str, address: str, **spec: Any) -> None:
        """A SendingIP whose PTR is right."""
        self.zone.hosts[address] = f"{name}.example.org"
        self.kubernetes.create("SendingIP", name, spec={"address": address, "hostname": f"{name}.example.org", **spec})

    def pool(self, name: str, *sources: str, **spec: Any) -> None:
        """A SenderPool for trials."""
        whole: dict[str, Any] = {
            "egress": {"mode": "PodNetwork"},
            "sources": [{"name": each} for each in sources],
            **spec,
        }
        self.kubernetes.create("SenderPool", name, spec=whole)

    async def stop(self) -> None:
        """All operators end as at SIGTERM."""
        for each in self.operators:
            await each.drain()


def source_stats(name: str, *, complained: float = 0.0, delivered: float = 1000.0) -> SourceStats:
    """A source with a history."""
    weights = [0.0] * 6
    weights[reputation.DELIVERED], weights[reputation.COMPLAINED] = delivered, complained
    return SourceStats(name, 0, 0.0, 0, -1, tuple(weights), tuple(int(each) for each in weights))


def tenant_stats(name: str, *, complained: float, delivered: float) -> TenantStats:
    """A tenant with a history."""
    found = source_stats(name, complained=complained, delivered=delivered)
    return TenantStats(name, found.weights, found.seen)


def pool_stats(name: str, **figures: Any) -> PoolStats:
    """A pool without mail."""
    return PoolStats(name, **({"waiting": 0, "ready": 0, "oldest_ready_at": 0.0, "per_second": 0.0} | figures))


def trouble(source: str, site: str, reply: str) -> Trouble:
    """A site that holds a source since a minute."""
    now = SystemClock().now()
    return Trouble(source, site, "quarantine", now + 3600, "reputation", reply, now - 60)


async def eventually(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first thing that `true` returns that counts as true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if found := await asyncio.to_thread(true):
            return found
        assert asyncio.get_running_loop().time() < deadline, "it did not come true in time"
        await asyncio.sleep(0.1)


async def served(fleet: Fleet, *names: str) -> None:
    """Play kubelet until each source has a lane that the log knows."""

    def done() -> bool:
        for each in fleet.kubernetes.all("Deployment"):
            if not (each.get("status") or {}).get("readyReplicas"):
                fleet.kubernetes.serve(each["metadata"]["name"])
        return all(name in fleet.sources and fleet.sources[name].lanes for name in names)

    await eventually(done)


def condition(body: dict[str, Any], kind: str) -> tuple[str, str]:
    """(status, reason); empty when there is none."""
    found = (body.get("status") or {}).get("conditions") or []
    return next(((each["status"], each["reason"]) for each in found if each["type"] == kind), ("", ""))


def bundle(path: Path) -> str:
    """A certificate as a webhook's configuration wants it."""
    return base64.b64encode(path.read_bytes()).decode()
