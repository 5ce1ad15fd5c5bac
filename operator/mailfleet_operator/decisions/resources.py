"""Resources as the apiserver gives them, read into values. What the schema promises is relied on, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mailfleet_operator.decisions.times import instant

GROUP, VERSION = "mailfleet.dev", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "mailfleet-operator"
POOL_LABEL, SOURCE_LABEL, LANE_LABEL = f"{GROUP}/pool", f"{GROUP}/source", f"{GROUP}/lane"

POD_NETWORK, EGRESS_PROXY, HOST_NETWORK = "PodNetwork", "EgressProxy", "HostNetwork"
EGRESS_GATEWAY, SECONDARY_NETWORK = "EgressGateway", "SecondaryNetwork"


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Part of a spec; what is not named here is somebody else's."""


class Member(Spec, frozen=True):
    """A source of a pool."""

    name: str
    weight: int = 100


class SecretRef(Spec, frozen=True):
    """A Secret by its name."""

    name: str


class Proxy(Spec, frozen=True):
    """SOCKS5 proxies."""

    endpoints: tuple[str, ...] = ()
    user: str = ""
    tls: bool = False
    auth_secret_ref: SecretRef | None = None


class HostNetwork(Spec, frozen=True):
    """Nodes that have the addresses."""

    node_selector: dict[str, str] = {}


class Gateway(Spec, frozen=True):
    """What a CiliumEgressGatewayPolicy needs."""

    node_selector: dict[str, str] = {}
    destination_cidrs: tuple[str, ...] = msgspec.field(default=("0.0.0.0/0",), name="destinationCIDRs")
    excluded_cidrs: tuple[str, ...] = msgspec.field(default=(), name="excludedCIDRs")


class NetworkRef(Spec, frozen=True):
    """A NetworkAttachmentDefinition."""

    name: str
    namespace: str = ""


class SecondaryNetwork(Spec, frozen=True):
    """What the Multus annotation needs."""

    network_ref: NetworkRef
    interface: str = "net1"
    prefix_length: int = 32
    gateway: str = ""


class Egress(Spec, frozen=True):
    """How mail leaves."""

    mode: str
    proxy: Proxy = Proxy()
    host_network: HostNetwork = HostNetwork()
    gateway: Gateway = Gateway()
    secondary_network: SecondaryNetwork | None = None


class Scaling(Spec, frozen=True):
    """How far and how fast a pool grows and shrinks."""

    mode: str = "Reputation"
    min_lanes: int = 1
    max_lanes: int = 4
    messages_per_second_per_lane: int = 100
    target_seconds: int = 300
    cooldown_seconds: int = 300
    spare_after_seconds: int = 30
    release_after_seconds: int = 604_800


class Reputation(Spec, frozen=True):
    """Borders of the score, and of a tenant's rates."""

    slow_below: int = 60
    quarantine_below: int = 40
    margin: int = 10
    on_quarantine: str = "Probe"
    complaints: str = "0.3%"
    bounces: str = "10%"


class Preflight(Spec, frozen=True):
    """What an address must show."""

    require_ptr: bool = msgspec.field(default=True, name="requirePTR")
    blocklists: tuple[str, ...] = ()
    port25: str = ""
    interval_seconds: int = 300


class PoolSpec(Spec, frozen=True):
    """Of a SenderPool."""

    egress: Egress
    paused: bool = False
    replicas: int | None = None
    sources: tuple[Member, ...] = ()
    spares: tuple[str, ...] = ()
    overflow: str = ""
    warmup_plan: str = "conservative"
    scaling: Scaling = Scaling()
    reputation: Reputation = Reputation()
    preflight: Preflight = Preflight()
    template: dict[str, Any] = {}


class Taken(Spec, frozen=True):
    """A spare that a pool has taken, as its status keeps it."""

    name: str
    taken_at: str = ""
    needed_at: str = ""
    reason: str = ""


class PoolStatus(Spec, frozen=True):
    """What the operator remembers of a pool."""

    shortage_since: str = ""
    last_spare_time: str = ""
    spares: tuple[Taken, ...] = ()
    conditions: tuple[dict[str, Any], ...] = ()


class WarmupSpec(Spec, frozen=True):
    """The plan that a pool's own source goes through."""

    plan: str
    started_at: str = ""


class AddressSpec(Spec, frozen=True):
    """Of a SendingIP."""

    hostname: str
    address: str = ""
    address6: str = ""
    bind_address: str = ""
    state: str = "Active"
    warmup: WarmupSpec | None = None
    proxy: str = ""
    node_name: str = ""


class Releasing(Spec, frozen=True):
    """A lane that was given up, and when."""

    lane: int
    since: str


class AddressStatus(Spec, frozen=True):
    """What the operator remembers of a SendingIP."""

    pool: str = ""
    state: str = "Pending"
    since: str = ""
    cause: str = ""
    improved_at: str = ""
    warmup_plan: str = ""
    warmup_started_at: str = ""
    lanes: tuple[int, ...] = ()
    lanes_changed_at: str = ""
    releasing: tuple[Releasing, ...] = ()
    conditions: tuple[dict[str, Any], ...] = ()


class Pool(msgspec.Struct, frozen=True):
    """A SenderPool."""

    name: str
    namespace: str
    uid: str
    generation: int
    created_at: float
    spec: PoolSpec
    status: PoolStatus = PoolStatus()
    raw_status: Mapping[str, Any] = {}
    deleting: bool = False


class Address(msgspec.Struct, frozen=True):
    """A SendingIP: an egress source of its name."""

    name: str
    namespace: str
    uid: str
    generation: int
    created_at: float
    spec: AddressSpec
    status: AddressStatus = AddressStatus()
    raw_status: Mapping[str, Any] = {}
    deleting: bool = False


def pool(body: Mapping[str, Any]) -> Pool:
    """The SenderPool in a body. Raises msgspec.ValidationError for what the schema would have refused."""
    spec = msgspec.convert(body.get("spec") or {}, PoolSpec)
    status = body.get("status") or {}
    return Pool(*_identity(body), spec, msgspec.convert(status, PoolStatus), status, _deleting(body))


def address(body: Mapping[str, Any]) -> Address:
    """The SendingIP in a body. Raises msgspec.ValidationError for what the schema would have refused."""
    spec = msgspec.convert(body.get("spec") or {}, AddressSpec)
    status = body.get("status") or {}
    return Address(*_identity(body), spec, msgspec.convert(status, AddressStatus), status, _deleting(body))


def _identity(body: Mapping[str, Any]) -> tuple[str, str, str, int, float]:
    about = body.get("metadata") or {}
    created_at = instant(about.get("creationTimestamp"))
    return about["name"], about.get("namespace", ""), about.get("uid", ""), about.get("generation", 0), created_at


def _deleting(body: Mapping[str, Any]) -> bool:
    return bool((body.get("metadata") or {}).get("deletionTimestamp"))


def share(percent: str) -> float:
    """`0.3%` as 0.003."""
    return float(percent.rstrip("% ")) / 100
