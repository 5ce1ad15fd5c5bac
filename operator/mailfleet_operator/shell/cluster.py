"""The apiserver by lightkube: lists, server-side apply, the Lease. Objects are what JSON says, in and out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.generic_resource import create_global_resource, create_namespaced_resource

from mailfleet_core import metrics
from mailfleet_operator.decisions.resources import GROUP, MANAGER, VERSION
from mailfleet_operator.decisions.times import text_of

Object = dict[str, Any]

POOL, ADDRESS, POLICY, DEPLOYMENT = "SenderPool", "SendingIP", "TrafficPolicy", "Deployment"
CONFIG_MAP, GATEWAY, LEASE, EVENT, TYPE = (
    "ConfigMap",
    "CiliumEgressGatewayPolicy",
    "Lease",
    "Event",
    "CustomResourceDefinition",
)
OWN = {POOL: "senderpools", ADDRESS: "sendingips", POLICY: "trafficpolicies"}
"""Our resource types, and what they are called in paths."""
REQUEST_SECONDS = 4.0
"""A leader that does not know any more whether it leads has a request under way no longer than this; with the time in which
it still acts, that is less than a lease."""

LIST_SECONDS = 60.0

# Generic classes for Kubernetes' own kinds too: as values they would cost an import of 30 MB and nothing would be gained.
KINDS: dict[str, Any] = {
    **{kind: create_namespaced_resource(GROUP, VERSION, kind, plural) for kind, plural in OWN.items()},
    DEPLOYMENT: create_namespaced_resource("apps", "v1", DEPLOYMENT, "deployments"),
    CONFIG_MAP: create_namespaced_resource("", "v1", CONFIG_MAP, "configmaps"),
    EVENT: create_namespaced_resource("", "v1", EVENT, "events"),
    LEASE: create_namespaced_resource("coordination.k8s.io", "v1", LEASE, "leases"),
    GATEWAY: create_global_resource("cilium.io", "v2", GATEWAY, "ciliumegressgatewaypolicies"),
    TYPE: create_global_resource("apiextensions.k8s.io", "v1", TYPE, "customresourcedefinitions"),
}


class Listed(NamedTuple):
    """All objects of a kind at one moment."""

    objects: list[Object]
    version: int
    """The resource version of the list: what is newer may be missing in it."""


class Refused(Exception):
    """The apiserver says no, and why."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"{error.status.reason}: {error.status.message}")
        self.code = error.status.code or 0


class NotLeading(Exception):
    """This process may not write: another one may lead."""


class Cluster:
    """One client for one process. Writes ask first whether this process still leads."""

    def __init__(self, kubeconfig: str, namespace: str, may_write: Callable[[], bool]) -> None:
        config = KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_service_account()
        self._client = AsyncClient(config=config, namespace=namespace, field_manager=MANAGER)
        self._may_write = may_write

    async def list(self, kind: str, namespace: str, label: str = "") -> Listed:
        """All objects of a kind. Raises Refused."""
        labels: Any = {label: None} if label else None
        found = self._client.list(KINDS[kind], namespace=namespace, labels=labels)
        try:
            async with asyncio.timeout(LIST_SECONDS):
                objects = [{**_plain(each), "kind": kind} async for each in found]
        except ApiError as error:
            _count("list", error.status.code)
            raise Refused(error) from error
        _count("list", 200)
        return Listed(objects, int(found.resourceVersion))

    async def get(self, kind: str, name: str, namespace: str) -> Object | None:
        """One object; None: there is none. Raises Refused."""
        place = {"namespace": namespace} if namespace else {}
        try:
            return _plain(await _soon("get", self._client.get(KINDS[kind], name, **place)))
        except Refused as error:
            if error.code == 404:
                return None
            raise

    async def apply(self, body: Mapping[str, Any]) -> Object:
        """Make what we say of an object true (server-side apply, by force: nobody else says that of our children)."""
        self._guard()
        about = body["metadata"]
        kind = KINDS[body["kind"]]
        place = {"namespace": about["namespace"]} if "namespace" in about else {}
        applied = self._client.apply(kind.from_dict(dict(body)), about["name"], force=True, **place)
        return _plain(await _soon("apply", applied))

    async def apply_status(self, kind: str, name: str, namespace: str, status: Mapping[str, Any]) -> Object:
        """Make the status of one of our resources this one."""
        self._guard()
        body = {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name, "namespace": namespace},
            "status": dict(status),
        }  # fmt: skip
        applied = self._client.apply(KINDS[kind].Status.from_dict(body), name, namespace=namespace, force=True)
        return _plain(await _soon("apply", applied))

    async def delete(self, kind: str, name: str, namespace: str) -> None:
        """Away with it, if it is there."""
        self._guard()
        place = {"namespace": namespace} if namespace else {}
        try:
            await _soon("delete", self._client.delete(KINDS[kind], name, **place))  # type: ignore[call-overload]
        except Refused as error:
            if error.code != 404:
                raise

    async def tell(self, about: Mapping[str, Any], severity: str, reason: str, message: str, now: float) -> None:
        """An Event of an object; the same one told again is the same Event with a later time."""
        self._guard()
        mark = hashlib.sha256(f"{about['uid']} {reason} {message}".encode()).hexdigest()[:16]
        body = {
            "apiVersion": "v1", "kind": EVENT,
            "metadata": {"name": f"{about['name']}.{mark}"[:253], "namespace": about["namespace"]},
            "involvedObject": dict(about), "type": severity, "reason": reason, "message": message[:1000],
            "source": {"component": MANAGER}, "firstTimestamp": text_of(now), "lastTimestamp": text_of(now), "count": 1,
        }  # fmt: skip
        await self.apply(body)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    def _guard(self) -> None:
        if not self._may_write():
            raise NotLeading

    # --- the Lease; its holder is decided elsewhere, so these two do not ask ------------------------------------------

    async def create_lease(self, name: str, namespace: str, spec: Mapping[str, Any]) -> Object | None:
        """The lease; None: there is one already."""
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": LEASE,
            "metadata": {"name": name, "namespace": namespace},
        }
        return await self._wrote(self._client.create(KINDS[LEASE].from_dict({**body, "spec": dict(spec)})))

    async def replace_lease(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> Object | None:
        """The lease as it is now, if it was still the one that `lease` tells of; None: it was not."""
        about = {key: lease["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": LEASE, "metadata": about, "spec": dict(spec)}
        return await self._wrote(self._client.replace(KINDS[LEASE].from_dict(body)))

    async def _wrote(self, request: Any) -> Object | None:
        try:
            return _plain(await _soon("write", request))
        except Refused as error:
            if error.code == 409:
                return None
            raise


async def _soon(verb: str, request: Any) -> Any:
    """The answer to a request. Raises Refused, TimeoutError, OSError."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            found = await request
    except ApiError as error:
        _count(verb, error.status.code)
        raise Refused(error) from error
    except (OSError, TimeoutError):
        _count(verb, None)
        raise
    _count(verb, 200)
    return found


def _count(verb: str, code: int | None) -> None:
    metrics.OPERATOR_API_CALLS.labels(verb, str(code or "none")).inc()


def _plain(found: Any) -> Object:
    body: Object = found.to_dict()
    return body


def namespace_of_pod(directory: str = "/var/run/secrets/kubernetes.io/serviceaccount") -> str:
    """The namespace of this pod's service account; `default` outside of a cluster."""
    try:
        return (Path(directory) / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return "default"
