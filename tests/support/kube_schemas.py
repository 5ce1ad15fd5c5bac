"""JSON schemas for kubeconform: of Kubernetes from the module that its programs are built from, of ours from our CRDs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.helm_chart import CHART
from support.needs import leave_out

Schema = dict[str, Any]


def specifications() -> list[Path]:
    """The OpenAPI files of Kubernetes in Go's module cache; leaves the test out when it was never built here."""
    asked = shutil.which("go") and subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True).stdout
    modules = Path((asked or "").strip() or Path.home() / "go/pkg/mod")
    found = sorted(modules.glob("k8s.io/kubernetes@*/api/openapi-spec/v3/*_openapi.json"))
    if not found:
        leave_out("needs the sources of Kubernetes; run: scripts/tools.sh kube-apiserver")
    newest = max(path.parents[3] for path in found)
    return [path for path in found if path.is_relative_to(newest)]


def write(directory: Path, kinds: set[tuple[str, str]]) -> None:
    """A file for each of `kinds` (apiVersion, kind) that Kubernetes or our CRDs know, named as kubeconform asks for it."""
    for name, schema in (*_of_kubernetes(kinds), *_of_ours()):
        (directory / f"{name}.json").write_text(json.dumps(schema))


def _name(group: str, version: str, kind: str) -> str:
    parts = [kind.lower(), *([group.split(".")[0]] if group else []), version]
    return "-".join(parts)


def _of_kubernetes(kinds: set[tuple[str, str]]) -> Iterator[tuple[str, Schema]]:
    for path in specifications():
        components = json.loads(path.read_text())["components"].get("schemas", {})
        for schema in components.values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        for schema in components.values():
            for known in schema.get("x-kubernetes-group-version-kind", ()):
                group, version, kind = known["group"], known["version"], known["kind"]
                if (f"{group}/{version}" if group else version, kind) in kinds:
                    yield _name(group, version, kind), {**schema, "components": {"schemas": components}}


def _of_ours() -> Iterator[tuple[str, Schema]]:
    for path in (CHART / "charts" / "crds" / "crds").glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())["spec"]
        for version in definition["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {}}
            yield _name(definition["group"], version["name"], definition["names"]["kind"]), schema


def _closed(schema: Any) -> Any:
    """What the API server drops or refuses is refused: fields that are not in the schema."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found
