"""The children of pools: one Deployment for each lane of each source, and what some egress modes need beside it.

Everything that is not of the lane comes from a template of the installation (image, settings, probes), with the pool's own
`template` over it. One replica and `Recreate`: two processes of one lane would only wait for each other.
"""

from __future__ import annotations

import copy
import ipaddress
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mailfleet_operator.decisions.resources import (
    API_VERSION,
    EGRESS_GATEWAY,
    EGRESS_PROXY,
    HOST_NETWORK,
    LANE_LABEL,
    MANAGER,
    POOL_LABEL,
    SECONDARY_NETWORK,
    SOURCE_LABEL,
    Address,
    Pool,
)

Object = dict[str, Any]
CONTAINER = "sender"
LANES_VARIABLE = "MAILFLEET_SENDER__LANES"
PROXY_DIRECTORY, PROXY_USERS = "/etc/mailfleet-egress", "users"
"""Where the proxy's Secret is mounted, and its key with lines of `user:password`."""
USERS_VARIABLE = "MAILFLEET_SENDER__PROXY_USERS_FILE"
MOST_CHARACTERS = 63


class Place(NamedTuple):
    """Where children go, and what they are called after."""

    namespace: str
    egress_namespace: str
    release: str


class TemplateError(ValueError):
    """The sender's template cannot be used."""


def checked_template(template: object) -> Object:
    """The PodTemplateSpec. Raises TemplateError."""
    spec = template.get("spec") if isinstance(template, dict) else None
    containers = spec.get("containers") if isinstance(spec, dict) else None
    names = [each.get("name") for each in containers or () if isinstance(each, dict)]
    if CONTAINER not in names:
        raise TemplateError(f"the sender's template is a PodTemplateSpec with a container called {CONTAINER!r}")
    assert isinstance(template, dict)
    return template


def name_of(place: Place, source: str, lane: int) -> str:
    """The name of a lane's Deployment; it tells lanes apart also where a long name had to be cut."""
    tail = f"-{lane}"
    return f"{place.release}-{source}"[: MOST_CHARACTERS - len(tail)].rstrip("-.") + tail


def namespace_of(place: Place, pool: Pool | None) -> str:
    """Senders with the host's network have a namespace of their own, for restricted ones refuse them."""
    on_host = pool is not None and pool.spec.egress.mode == HOST_NETWORK
    return (place.egress_namespace or place.namespace) if on_host else place.namespace


def labels(pool: str, source: str, lane: int) -> dict[str, str]:
    """What a sender is found by."""
    return {POOL_LABEL: pool, SOURCE_LABEL: source, LANE_LABEL: str(lane)}


def deployment(
    place: Place, template: Mapping[str, Any], pool: Pool, address: Address | None, source: str, lane: int
) -> Object:
    """The sender of one lane. `address` is None when the SendingIP is gone and the lane is only emptied."""
    selector = {SOURCE_LABEL: source, LANE_LABEL: str(lane)}
    namespace = namespace_of(place, pool)
    marks = labels(pool.name, source, lane) | {"app.kubernetes.io/component": CONTAINER}
    about: Object = {"name": name_of(place, source, lane), "namespace": namespace, "labels": _managed(marks)}
    if namespace == pool.namespace and pool.uid:
        about["ownerReferences"] = [owner(pool)]
    pod = pod_template(template, pool, address, lane, marks)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": pod,
        },
    }


def owner(pool: Pool) -> Object:
    """The reference by which children go when their pool goes."""
    return {
        "apiVersion": API_VERSION, "kind": "SenderPool", "name": pool.name, "uid": pool.uid, "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip


def _managed(marks: Mapping[str, str]) -> dict[str, str]:
    return {"app.kubernetes.io/name": "mailfleet", "app.kubernetes.io/managed-by": MANAGER, **marks}


def pod_template(
    template: Mapping[str, Any], pool: Pool, address: Address | None, lane: int, marks: Mapping[str, str]
) -> Object:
    """The pod of a lane's sender."""
    own = pool.spec.template
    pod = copy.deepcopy(dict(template))
    about = pod.setdefault("metadata", {})
    about["labels"] = {**(about.get("labels") or {}), **(own.get("labels") or {}), **_managed(marks)}
    about["annotations"] = {**(about.get("annotations") or {}), **(own.get("annotations") or {})}
    spec = pod["spec"]
    for key in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName",
                "terminationGracePeriodSeconds"):  # fmt: skip
        if key in own:
            spec[key] = own[key]
    spec.setdefault("terminationGracePeriodSeconds", 60)
    spec.setdefault("enableServiceLinks", False)
    container = next(each for each in spec["containers"] if each["name"] == CONTAINER)
    if own.get("resources"):
        container["resources"] = own["resources"]
    container["env"] = _with(
        container.get("env") or [], [*(own.get("env") or ()), {"name": LANES_VARIABLE, "value": str(lane)}]
    )
    _restrict(spec, container)
    _egress(pod, container, pool, address)
    if not about["annotations"]:
        del about["annotations"]
    return pod


def _with(env: list[Object], more: list[Object]) -> list[Object]:
    """Server-side apply merges variables by name, so each is there once."""
    names = {each["name"] for each in more}
    return [*(each for each in env if each["name"] not in names), *{each["name"]: each for each in more}.values()]


def _restrict(spec: Object, container: Object) -> None:
    """What a restricted namespace asks for, where the template does not say otherwise."""
    spec["securityContext"] = {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        **(spec.get("securityContext") or {}),
    }  # fmt: skip
    container["securityContext"] = {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        **(container.get("securityContext") or {}),
    }  # fmt: skip
    # The lane is given back before the process is told to stop only by itself; the pause lets the endpoint go first.
    container.setdefault("lifecycle", {"preStop": {"sleep": {"seconds": 1}}})


def _egress(pod: Object, container: Object, pool: Pool, address: Address | None) -> None:
    mode = pool.spec.egress.mode
    if mode == HOST_NETWORK:
        _on_host(pod["spec"], container, pool, address)
    elif mode == EGRESS_PROXY and pool.spec.egress.proxy.auth_secret_ref is not None:
        _proxy_secret(pod["spec"], container, pool.spec.egress.proxy.auth_secret_ref.name)
    elif mode == SECONDARY_NETWORK and pool.spec.egress.secondary_network is not None and address is not None:
        pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = networks(pool, address)


def _on_host(spec: Object, container: Object, pool: Pool, address: Address | None) -> None:
    spec["hostNetwork"] = True
    spec["dnsPolicy"] = "ClusterFirstWithHostNet"
    chosen = dict(spec.get("nodeSelector") or {}) | pool.spec.egress.host_network.node_selector
    if address is not None and address.spec.node_name:
        chosen["kubernetes.io/hostname"] = address.spec.node_name
    if chosen:
        spec["nodeSelector"] = chosen
    # Several senders share the host's ports, so none of them may have a fixed one.
    container.pop("ports", None)
    container.pop("startupProbe", None)
    container.pop("readinessProbe", None)
    container.pop("livenessProbe", None)
    words = container.get("args") or container.get("command") or []
    for number, word in enumerate(words[:-1]):
        if word == "--http":
            words[number + 1] = "0.0.0.0:0"


def _proxy_secret(spec: Object, container: Object, secret: str) -> None:
    volumes = [each for each in spec.get("volumes") or [] if each["name"] != "egress-proxy"]
    spec["volumes"] = [*volumes, {"name": "egress-proxy", "secret": {"secretName": secret}}]
    mounts = [each for each in container.get("volumeMounts") or [] if each["name"] != "egress-proxy"]
    container["volumeMounts"] = [*mounts, {"name": "egress-proxy", "mountPath": PROXY_DIRECTORY, "readOnly": True}]
    container["env"] = _with(container["env"], [{"name": USERS_VARIABLE, "value": f"{PROXY_DIRECTORY}/{PROXY_USERS}"}])


def networks(pool: Pool, address: Address) -> str:
    """The annotation that Multus reads: the pod gets the address on the second network."""
    second = pool.spec.egress.secondary_network
    assert second is not None
    network: Object = {
        "name": second.network_ref.name, "namespace": second.network_ref.namespace or pool.namespace,
        "interface": second.interface,
        "ips": [f"{each}/{_prefix(each, second.prefix_length)}" for each in bound(address)],
    }  # fmt: skip
    if second.gateway:
        network["gateway"] = [second.gateway]
    return json.dumps([network])


def _prefix(address: str, length: int) -> int:
    return min(length, 32) if ipaddress.ip_address(address).version == 4 else max(length, 64)


def bound(address: Address) -> tuple[str, ...]:
    """The addresses that the machine has."""
    spec = address.spec
    return tuple(filter(None, (spec.bind_address or spec.address, spec.address6)))


def gateway_policy(place: Place, pool: Pool, address: Address) -> Object:
    """The CiliumEgressGatewayPolicy of one source: its senders' mail leaves by its address."""
    gateway = pool.spec.egress.gateway
    marks = {POOL_LABEL: pool.name, SOURCE_LABEL: address.name}
    selected = {**marks, "io.kubernetes.pod.namespace": place.namespace}
    spec: Object = {
        "selectors": [{"podSelector": {"matchLabels": selected}}],
        "destinationCIDRs": list(gateway.destination_cidrs),
        "egressGateway": {"nodeSelector": {"matchLabels": gateway.node_selector}, "egressIP": bound(address)[0]},
    }
    if gateway.excluded_cidrs:
        spec["excludedCIDRs"] = list(gateway.excluded_cidrs)
    # It is not of a namespace, so it cannot be owned by the pool; the operator takes it away itself.
    about = {"name": f"{place.release}-{place.namespace}-{address.name}", "labels": _managed(marks)}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumEgressGatewayPolicy", "metadata": about, "spec": spec}


def needs_gateway_policy(pool: Pool) -> bool:
    """Is the pool's mail led out by Cilium?"""
    return pool.spec.egress.mode == EGRESS_GATEWAY
