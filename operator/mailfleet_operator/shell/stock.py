"""The resources as the operator knows them: what lists and watches told, the newest of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from mailfleet_operator.decisions import resources
from mailfleet_operator.decisions.resources import LANE_LABEL, SOURCE_LABEL, Address, Pool
from mailfleet_operator.shell.cluster import ADDRESS, DEPLOYMENT, POLICY, POOL

log = logging.getLogger(__name__)

Object = dict[str, Any]


class Stock:
    """By kind, namespace and name."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.addresses: dict[str, Address] = {}
        self.policies: dict[str, Object] = {}
        self.deployments: dict[tuple[str, str], Object] = {}
        self.version = 0
        """Grows with every change of pools and addresses."""
        self._versions: dict[tuple[str, str, str], int] = {}

    def put(self, kind: str, there: bool, body: Object) -> bool:
        """Take an object as it was told of. Returns whether it is newer than what was known."""
        about = body["metadata"]
        key = (kind, about.get("namespace", ""), about["name"])
        version = int(about.get("resourceVersion") or 0)
        if version < self._versions.get(key, 0):
            return False
        self._versions[key] = version
        try:
            self._keep(kind, there, body)
        except msgspec.ValidationError as error:
            log.error("a resource cannot be read", extra={"kind": kind, "resource": about["name"], "error": str(error)})
            return False
        return True

    def replace(self, kind: str, bodies: Iterable[Object]) -> None:
        """Take a whole list: what is not in it is gone."""
        listed = {(each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in bodies}
        for namespace, name in [key[1:] for key in self._versions if key[0] == kind]:
            if (namespace, name) not in listed:
                self._forget(kind, namespace, name)
        for body in listed.values():
            self.put(kind, True, body)

    def lanes_of(self, source: str) -> dict[tuple[str, str], Object]:
        """The Deployments of a source's senders."""
        return {
            key: each
            for key, each in self.deployments.items()
            if each["metadata"]["labels"].get(SOURCE_LABEL) == source
        }

    def _keep(self, kind: str, there: bool, body: Object) -> None:
        about = body["metadata"]
        if not there:
            self._forget(kind, about.get("namespace", ""), about["name"])
        elif kind == POOL:
            self.pools[about["name"]] = resources.pool(body)
            self.version += 1
        elif kind == ADDRESS:
            self.addresses[about["name"]] = resources.address(body)
            self.version += 1
        elif kind == POLICY:
            self.policies[about["name"]] = body
        elif kind == DEPLOYMENT and LANE_LABEL in (about.get("labels") or {}):
            self.deployments[about["namespace"], about["name"]] = body

    def _forget(self, kind: str, namespace: str, name: str) -> None:
        tables: dict[str, dict[str, Any]] = {POOL: self.pools, ADDRESS: self.addresses, POLICY: self.policies}
        if kind == DEPLOYMENT:
            self.deployments.pop((namespace, name), None)
        else:
            tables[kind].pop(name, None)
            self.version += 1
        self._versions.pop((kind, namespace, name), None)


def ready(deployment: Object) -> bool:
    """Is its sender there?"""
    return int((deployment.get("status") or {}).get("readyReplicas") or 0) > 0
