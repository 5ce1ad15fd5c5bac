"""A real Prometheus (Debian's) that scrapes what it is told to, with rules if wanted."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support import addresses
from support.needs import program
from support.processes import Process


@dataclass(frozen=True, slots=True)
class Target:
    """One `/metrics`, and the labels that Kubernetes would give it."""

    address: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


class Refused(Exception):
    """Prometheus does not understand a query; the text says why."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one."""

    url: str

    def query(self, expr: str, at: float | None = None) -> list[Sample]:
        """The vector that `expr` is now; a scalar is a vector of one. Raises Refused."""
        answer = self._get("/api/v1/query", query=expr, **({} if at is None else {"time": f"{at:.3f}"}))
        if answer["resultType"] == "scalar":
            return [Sample({}, float(answer["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in answer["result"]]

    def series(self, expr: str, start: float, end: float, step: float) -> list[tuple[dict[str, str], list[list[Any]]]]:
        """Labels and (instant, value as text) of each series of `expr` over a time. Raises Refused."""
        answer = self._get("/api/v1/query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:g}")
        return [(each["metric"], each["values"]) for each in answer["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """All rules as it has evaluated them: `name`, `type`, `health`, `lastError`, and of alerts `alerts`."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def up(self) -> int:
        """Targets that answer."""
        return int(sum(sample.value for sample in self.query("up")))

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(f"{error.code}: {error.read().decode()}") from error


@contextmanager
def prometheus(
    directory: Path, targets: Sequence[Target], rules: Sequence[Path] = (), every_seconds: float = 1.0
) -> Iterator[Prometheus]:
    """Start one that scrapes and evaluates rules so often; it is ready, and has seen nothing yet."""
    directory.mkdir(parents=True, exist_ok=True)
    port = addresses.free_port()
    every = f"{every_seconds * 1000:.0f}ms"
    scrape = {
        "job_name": "mailfleet",
        "static_configs": [{"targets": [each.address], "labels": dict(each.labels)} for each in targets],
    }
    settings = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [scrape],
    }
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump(settings))
    command = [
        str(program("prometheus")), f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--query.lookback-delta=1m",
    ]  # fmt: skip
    process = Process("prometheus", command, directory / "prometheus.log")
    try:
        process.wait_for(lambda: _ready(port))
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.stop()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
            return True
    except OSError:
        time.sleep(0.05)
        return False
