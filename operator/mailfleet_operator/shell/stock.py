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
        """Grows with every change of what decides which address belongs where: what there is, and what pools name."""
        self._senders: dict[str, dict[tuple[str, str], Object]] = {}
        """Source → its Deployments."""
        self._versions: dict[tuple[str, str, str], int] = {}

    def put(self, kind: str, there: bool, body: Object) -> bool:
        """Take an object as it was told of. Returns whether it is newer than what was known: what we wrote ourselves, or have
        listed, is told of by a watch again."""
        about = body["metadata"]
        key = (kind, about.get("namespace", ""), about["name"])
        version = int(about.get("resourceVersion") or 0)
        known = self._versions.get(key, -1)
        if version < known or (there and version == known):
            return False
        self._versions[key] = version
        try:
            self._keep(kind, there, body)
        except msgspec.ValidationError as error:
            log.error("a resource cannot be read", extra={"kind": kind, "resource": about["name"], "error": str(error)})
            return False
        return True

    def replace(self, kind: str, bodies: Iterable[Object], version: int) -> None:
        """Take a whole list as it was at a resource version: what is not in it, and not newer, is gone."""
        listed = {(each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in bodies}
        for namespace, name in [
            key[1:] for key, known in self._versions.items() if key[0] == kind and known <= version
        ]:
            if (namespace, name) not in listed:
                self._forget(kind, namespace, name)
        for body in listed.values():
            self.put(kind, True, body)

    def lanes_of(self, source: str) -> dict[tuple[str, str], Object]:
        """The Deployments of a source's senders."""
        return dict(self._senders.get(source, {}))

    def _keep(self, kind: str, there: bool, body: Object) -> None:
        about = body["metadata"]
        if not there:
            self._forget(kind, about.get("namespace", ""), about["name"])
        elif kind == POOL:
            self._keep_pool(resources.pool(body))
        elif kind == ADDRESS:
            address = resources.address(body)
            self.version += address.name not in self.addresses
            self.addresses[address.name] = address
        elif kind == POLICY:
            self.policies[about["name"]] = body
        elif kind == DEPLOYMENT and LANE_LABEL in (about.get("labels") or {}):
            key = about["namespace"], about["name"]
            self.deployments[key] = body
            self._senders.setdefault(about["labels"].get(SOURCE_LABEL, ""), {})[key] = body

    def _keep_pool(self, pool: Pool) -> None:
        known = self.pools.get(pool.name)
        self.version += known is None or _names(known) != _names(pool)
        self.pools[pool.name] = pool

    def _forget(self, kind: str, namespace: str, name: str) -> None:
        tables: dict[str, dict[str, Any]] = {POOL: self.pools, ADDRESS: self.addresses, POLICY: self.policies}
        if kind == DEPLOYMENT:
            body = self.deployments.pop((namespace, name), None)
            if body is not None:
                self._senders[body["metadata"]["labels"].get(SOURCE_LABEL, "")].pop((namespace, name), None)
        else:
            tables[kind].pop(name, None)
            self.version += 1
        self._versions.pop((kind, namespace, name), None)


def _names(pool: Pool) -> tuple[Any, ...]:
    """What of a pool decides which addresses belong to it."""
    taken = [spare.name for spare in pool.status.spares]
    return pool.uid, pool.created_at, pool.deleting, pool.spec.sources, pool.spec.spares, taken


def ready(deployment: Object) -> bool:
    """Is its sender there?"""
    return int((deployment.get("status") or {}).get("readyReplicas") or 0) > 0
