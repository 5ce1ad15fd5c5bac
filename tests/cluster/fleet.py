"""Mailfleet, installed by Helm into the lab: its values, its credentials, its clients outside, its books."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.lab import places
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.manifests import named
from cluster.lab.places import NAMESERVER, NODE
from cluster.lab.programs import ROOT
from cluster.lab.town import BLOCKLIST, LIMITS, TESTS, Town, ehlo_name
from exam.behaviours import DOMAIN, REPORTS
from exam.judge import Line
from mailfleet_cli.credential import create
from mailfleet_ingest.decisions.credentials import Credential
from support.processes import Process

CHART = ROOT / "charts" / "mailfleet"
NAMESPACE, EGRESS_NAMESPACE = "mail", "mailfleet-egress"
SUBMISSION_PORT = 30587
INGEST = "deployment/mailfleet-ingest"
LITTLE = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
"""A lab has two cores: a pod asks for next to nothing and may take what there is."""
POLICY = {
    "version": 1,
    "providers": [{"name": "yahoo", "mx": ["*.yahoodns.net"], "feedback": True}],
    "limits": [{
        "name": "lab", "per": ["source", "site"],
        "cases": [{
            "message_rate": f"{round(LIMITS.messages_per_second * 60 * 0.8)}/m", "burst": 10,
            "connection_rate": f"{round(LIMITS.connections_per_second * 60 * 0.8)}/m",
            "concurrency": LIMITS.concurrency - 1, "messages_per_connection": LIMITS.messages_per_connection // 2,
        }],
    }],
}  # fmt: skip
"""Somewhat below what the providers allow; one of them reports complaints."""
COOL_DOWN = 20
FEED = """
import json, pathlib, subprocess, sys
where = pathlib.Path("/tmp/reports")
where.mkdir(exist_ok=True)
for number, text in enumerate(json.load(sys.stdin)):
    (where / f"{number}.eml").write_text(text)
sys.exit(subprocess.run(["mailfleet", "feedback", "--json", *map(str, sorted(where.glob("*.eml")))]).returncode)
"""
REPORT = """\
From: <feedback@yahoo.test>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part"

--part
Content-Type: message/feedback-report

Feedback-Type: abuse
Version: 1
Original-Rcpt-To: <{recipient}>

--part
Content-Type: text/rfc822-headers

Received: from load.test by mx.mailfleet.test with ESMTPSA id {mailfleet}; Sun, 22 Nov 2026 12:00:00 +0000

--part--
"""


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
        """Of the SenderPool; times are short, for a story is."""
        return {
            "egress": {"mode": "HostNetwork"},
            "sources": [{"name": source_name(number)} for number in self.sources],
            "spares": [source_name(number) for number in self.spares],
            "scaling": {"minLanes": 1, "maxLanes": 2, "cooldownSeconds": COOL_DOWN, "spareAfterSeconds": 5},
            "preflight": {"requirePTR": True, "blocklists": [BLOCKLIST], "intervalSeconds": 5},
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
        # The providers of a lab are inside.
        "config": {"sender": {"allowed_inside": [places.WORLD]}},
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
    passwords: dict[str, str] = field(default_factory=dict)
    """Of tenants, each of which has a credential of its name."""

    def install(self, chosen: dict[str, Any]) -> None:
        """`helm upgrade --install --wait`. Raises ProcessError that says how the pods are."""
        path = self.directory / "values.json"
        path.write_text(json.dumps(chosen))
        self.kubectl.helm(
            "upgrade", "--install", "mailfleet", str(CHART), "--namespace", NAMESPACE, "--create-namespace",
            "--values", str(path), "--wait", "--timeout", "8m",
        )  # fmt: skip

    def add_tenant(self, name: str, pool: str) -> None:
        """A credential whose mail goes by `pool`."""
        path = self.directory / "credentials.toml"
        credential = Credential(name=name, hash="", tenant=name, domains=(f"{REPORTS}.{DOMAIN}",), pool=pool)
        self.passwords[name] = create(path, credential)
        content = {"credentials.toml": path.read_text()}
        self.kubectl.apply(named("Secret", "mailfleet-credentials", stringData=content), namespace=NAMESPACE)

    def submit(self, town: Town, tenant: str, mark: str, count: int, rate: float) -> Process:
        """A client outside that hands in mail through the node's port, running. Names of its mails begin with `mark`."""
        command = [
            sys.executable, "-m", "cluster.lab.submit", "--to", f"{NODE}:{SUBMISSION_PORT}", "--user", tenant,
            "--password", self.passwords[tenant], "--mark", mark, "--count", str(count), "--rate", str(rate),
            "--log", str(self._load(mark)),
        ]  # fmt: skip
        out = self.directory / f"{mark}.out"
        return Process("submit", town.outside.inside(*command), out, {"PYTHONPATH": str(TESTS)})

    def handed_in(self, mark: str) -> list[Line]:
        """The client's book."""
        path = self._load(mark)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _load(self, mark: str) -> Path:
        return self.directory / f"{mark}.jsonl"

    # --- what Kubernetes says ------------------------------------------------------------------------------------------
    def address(self, number: int) -> dict[str, Any]:
        """The status of a SendingIP."""
        found: dict[str, Any] = (
            self.kubectl.get("sendingip", source_name(number), namespace=NAMESPACE).get("status") or {}
        )
        return found

    def pool(self, pool: Pool) -> dict[str, Any]:
        """The status of a SenderPool."""
        found: dict[str, Any] = self.kubectl.get("senderpool", pool.name, namespace=NAMESPACE).get("status") or {}
        return found

    def reasons(self, kind: str, name: str) -> set[str]:
        """Of all events about a resource."""
        chosen = f"involvedObject.kind={kind},involvedObject.name={name}"
        found = self.kubectl.get("events", f"--field-selector={chosen}", namespace=NAMESPACE)["items"]
        return {each["reason"] for each in found}

    # --- its command line ----------------------------------------------------------------------------------------------
    def complain(self, about: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Feed a report for each (id of the mail, recipient); what became of them."""
        reports = [REPORT.format(mailfleet=mailfleet, recipient=recipient) for mailfleet, recipient in about]
        said = self.kubectl(
            "exec", "-i", "-n", NAMESPACE, INGEST, "--", "python", "-c", FEED, given=json.dumps(reports), seconds=180
        )
        return [json.loads(line) for line in said.splitlines()]

    def events(self, *kinds: str) -> list[Line]:
        """What was told of all mail of the last hours."""
        chosen = [word for kind in kinds for word in ("--kind", kind)]
        command = ("exec", "-n", NAMESPACE, INGEST, "--", "mailfleet", "events", "--since", "3h", "--json", *chosen)
        return [json.loads(line) for line in self.kubectl(*command, seconds=300).splitlines()]


def verdict(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty when there is none."""
    for each in status.get("conditions", ()):
        if each["type"] == kind:
            return each["status"], each["reason"], each["message"]
    return "", "", ""
