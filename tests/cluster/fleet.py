"""Mailfleet, installed by Helm into the lab: its values, its credential, its client outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.lab import places
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.manifests import named
from cluster.lab.places import NAMESERVER, NODE
from cluster.lab.programs import ROOT
from cluster.lab.town import BLOCKLIST, LIMITS, TESTS, Town, ehlo_name
from mailfleet_cli.credential import create
from mailfleet_ingest.decisions.credentials import Credential
from support.processes import Process

CHART = ROOT / "charts" / "mailfleet"
NAMESPACE = "mail"
SUBMISSION_PORT = 30587
USER, SENDER = "shop", "news@shop.test"
LITTLE = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
"""A lab has two cores: a pod asks for next to nothing and may take what there is."""
POLICY = {
    "version": 1,
    "limits": [{
        "name": "lab", "per": ["source", "site"],
        "cases": [{
            "message_rate": f"{round(LIMITS.messages_per_second * 60 * 0.8)}/m", "burst": 10,
            "connection_rate": f"{round(LIMITS.connections_per_second * 60 * 0.8)}/m",
            "concurrency": LIMITS.concurrency - 1, "messages_per_connection": LIMITS.messages_per_connection // 2,
        }],
    }],
}  # fmt: skip
"""Somewhat below what the providers allow."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A sender pool of the story."""

    name: str
    sources: Sequence[int]
    """Numbers of sending IPs."""
    spares: Sequence[int] = ()

    @property
    def addresses(self) -> set[str]:
        """Of its sources."""
        return {places.source(number) for number in self.sources}

    def spec(self) -> dict[str, Any]:
        """Of the SenderPool."""
        return {
            "egress": {"mode": "HostNetwork"},
            "sources": [{"name": source_name(number)} for number in self.sources],
            "spares": [source_name(number) for number in self.spares],
            "scaling": {"minLanes": 1, "maxLanes": 2},
            "preflight": {"requirePTR": True, "blocklists": [BLOCKLIST]},
        }


def source_name(number: int) -> str:
    """The name of a SendingIP."""
    return f"out-{number}"


def values(images: dict[str, Made], bootstrap: str, pools: Sequence[Pool], **more: Any) -> dict[str, Any]:
    """Values of the chart for the lab."""
    numbers = [number for pool in pools for number in (*pool.sources, *pool.spares)]
    tags = {name: made.name.rpartition(":")[2] for name, made in images.items()}
    return {
        "image": {"repository": "docker.io/library/mailfleet", "tag": tags["mailfleet"]},
        "hostname": "mx.mailfleet.test",
        "dns": {"nameservers": [NAMESERVER]},
        "kafka": {"bootstrapServers": bootstrap, "queuePartitions": 8, "lanes": 16, "topicsJob": {"resources": LITTLE}},
        "crds": {"upgradeJob": {"resources": LITTLE}},
        "pools": {pool.name: pool.spec() for pool in pools},
        "sendingIPs": {
            source_name(number): {"address": places.source(number), "hostname": ehlo_name(number)} for number in numbers
        },
        "trafficPolicy": POLICY,
        "ingest": {
            "replicaCount": 1,
            "resources": LITTLE,
            "service": {"type": "NodePort", "nodePorts": {"submission": SUBMISSION_PORT}},
        },
        "router": {"replicaCount": 2, "resources": LITTLE},
        "sender": {"resources": LITTLE},
        "operator": {
            "resources": LITTLE,
            "image": {"repository": "docker.io/library/mailfleet-operator", "tag": tags["mailfleet-operator"]},
        },
        **more,
    }


@dataclass(frozen=True, slots=True)
class Fleet:
    """An installed one."""

    kubectl: Kubectl
    directory: Path
    """For settings and books of the test."""

    def install(self, chosen: dict[str, Any]) -> None:
        """`helm upgrade --install --wait`. Raises ProcessError that says how the pods are."""
        path = self.directory / "values.json"
        path.write_text(json.dumps(chosen))
        self.kubectl.helm(
            "upgrade", "--install", "mailfleet", str(CHART), "--namespace", NAMESPACE, "--create-namespace",
            "--values", str(path), "--wait", "--timeout", "8m",
        )  # fmt: skip

    def add_credential(self, pool: str) -> str:
        """One for `USER` whose mail goes by `pool`; its password."""
        path = self.directory / "credentials.toml"
        credential = Credential(name=USER, hash="", tenant=USER, domains=(SENDER.rpartition("@")[2],), pool=pool)
        password = create(path, credential)
        content = {"credentials.toml": path.read_text()}
        self.kubectl.apply(named("Secret", "mailfleet-credentials", stringData=content), namespace=NAMESPACE)
        return password

    def submit(self, town: Town, password: str, count: int, mark: str, domains: Sequence[str]) -> Process:
        """A client outside that hands in mail through the node's port, running."""
        command = [
            sys.executable, "-m", "cluster.lab.submit", "--to", f"{NODE}:{SUBMISSION_PORT}", "--user", USER,
            "--password", password, "--from", SENDER, "--count", str(count), "--mark", mark,
            "--log", str(self.directory / f"load-{mark}.jsonl"), *domains,
        ]  # fmt: skip
        out = self.directory / f"submit-{mark}.out"
        return Process("submit", town.outside.inside(*command), out, {"PYTHONPATH": str(TESTS)})

    def accepted(self, mark: str) -> list[dict[str, Any]]:
        """What the client got a 250 for."""
        path = self.directory / f"load-{mark}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
