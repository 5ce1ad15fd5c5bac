"""The operator on a real API server: pools get senders, the log hears of them, and everything says why."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightkube import ApiError

from mailfleet_core import metrics
from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus
from support.operators import (
    Fleet,
    bundle,
    condition,
    eventually,
    pool_stats,
    served,
    source_stats,
    tenant_stats,
    trouble,
)  # fmt: skip

pytestmark = pytest.mark.timeout(120)


async def sending(fleet: Fleet, *names: str, pool: str = "tx", **spec: Any) -> None:
    """A pool whose sources all send."""
    for number, name in enumerate(names, 1):
        fleet.address(name, f"192.0.2.{number}")
    fleet.pool(pool, *names, **spec)
    await fleet.operator()
    await served(fleet, *names)


async def test_a_pool_gets_a_sender_for_each_source_and_the_log_hears_of_them(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", "ip-2")
    children = {each["metadata"]["name"]: each for each in fleet.kubernetes.all("Deployment")}
    assert sorted(children) == ["mailfleet-ip-1-0", "mailfleet-ip-2-1"]
    child = children["mailfleet-ip-1-0"]
    assert child["metadata"]["labels"]["mailfleet.dev/pool"] == "tx"
    assert child["metadata"]["ownerReferences"][0]["kind"] == "SenderPool"
    assert child["metadata"]["managedFields"][0]["manager"] == "mailfleet-operator"
    assert child["spec"]["template"]["spec"]["containers"][0]["env"] == [
        {"name": "MAILFLEET_SENDER__LANES", "value": "0"}
    ]
    assert {name: source.state for name, source in fleet.sources.items()} == {"ip-1": "active", "ip-2": "active"}
    assert {source.pool for source in fleet.sources.values()} == {"tx"}
    pool = await eventually(lambda: ready(fleet, "tx"))
    assert (pool["status"]["sourceSummary"], pool["status"]["senderSummary"]) == ("2/2", "2/2")
    assert pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
    assert condition(pool, "ScalingLimited") == ("Unknown", "Fallback")
    address = fleet.kubernetes.get("SendingIP", "ip-1")
    assert condition(address, "PTRVerified") == ("True", "Verified")
    assert condition(address, "NotListed") == ("Unknown", "NotChecked")
    assert address["status"]["state"] == "Active"


def ready(fleet: Fleet, pool: str) -> dict[str, Any] | None:
    found = fleet.kubernetes.get("SenderPool", pool)
    return found if condition(found, "Ready") == ("True", "AllReady") else None


async def test_nothing_is_written_when_nothing_changes(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    await eventually(lambda: ready(fleet, "tx"))
    await asyncio.sleep(2)
    before = [
        each["metadata"]["resourceVersion"]
        for kind in ("SenderPool", "SendingIP", "Deployment")
        for each in fleet.kubernetes.all(kind)
    ]
    records = len(fleet.log.records(topics.CONTROL, 0))
    await asyncio.sleep(8)
    after = [
        each["metadata"]["resourceVersion"]
        for kind in ("SenderPool", "SendingIP", "Deployment")
        for each in fleet.kubernetes.all(kind)
    ]
    assert before == after
    assert len(fleet.log.records(topics.CONTROL, 0)) == records


async def test_at_rest_nothing_is_asked_but_that_the_lease_is_renewed(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", preflight={"intervalSeconds": 5})
    await fleet.say(pools=(pool_stats("tx"),))
    await eventually(lambda: ready(fleet, "tx"))
    # Once more everything is listed, a while after the watches began.
    await asyncio.sleep(8)
    before = calls()
    for _ in range(10):
        await asyncio.sleep(1)
        await fleet.say(pools=(pool_stats("tx"),))
    asked = calls() - before
    assert set(asked) == {"write"}
    assert asked["write"] <= 22


def calls() -> Counter[str]:
    """Requests to the API server by verb, of this process."""
    (family,) = metrics.OPERATOR_API_CALLS.collect()
    found: Counter[str] = Counter()
    for sample in family.samples:
        if sample.name.endswith("_total"):
            found[sample.labels["verb"]] += int(sample.value)
    return found


async def test_a_sender_that_somebody_scales_to_none_is_scaled_back(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    fleet.kubernetes.change("Deployment", "mailfleet-ip-1-0", spec={"replicas": 0})
    await eventually(lambda: fleet.kubernetes.get("Deployment", "mailfleet-ip-1-0")["spec"]["replicas"] == 1)


async def test_a_lost_ptr_drains_the_source_and_a_spare_takes_its_place(fleet: Fleet) -> None:
    fleet.address("ip-9", "192.0.2.9")
    await sending(
        fleet, "ip-1", "ip-2", spares=["ip-9"], scaling={"spareAfterSeconds": 1, "cooldownSeconds": 5},
        preflight={"intervalSeconds": 5},
    )  # fmt: skip
    await fleet.say(pools=(pool_stats("tx"),))
    spare = await eventually(lambda: condition(fleet.kubernetes.get("SendingIP", "ip-9"), "Ready")[1] == "Spare")
    assert spare
    fleet.zone.lost.add("192.0.2.1")

    def drained() -> bool:
        found = fleet.kubernetes.get("SendingIP", "ip-1")
        return found["status"]["state"] == "Draining" and condition(found, "Ready") == ("False", "NoPTR")

    await eventually(drained, 60)
    assert (fleet.sources["ip-1"].state, fleet.sources["ip-1"].reason) == ("draining", "NoPTR")
    await served(fleet, "ip-9")
    spare = fleet.sources["ip-9"]
    assert (spare.state, spare.pool, spare.warmup) == ("active", "tx", "conservative")
    assert fleet.kubernetes.get("SendingIP", "ip-9")["status"]["state"] == "Warming"
    taken = fleet.kubernetes.get("SenderPool", "tx")["status"]["spares"]
    assert [each["name"] for each in taken] == ["ip-9"]
    reasons = {each["reason"] for each in fleet.kubernetes.all("Event")}
    assert {"NoPTR", "SpareTaken"} <= reasons
    await eventually(
        lambda: "mailfleet-ip-1-0" not in {each["metadata"]["name"] for each in fleet.kubernetes.all("Deployment")}
    )


async def test_what_a_site_holds_is_shown_and_is_the_routers_business(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", "ip-2", "ip-3", spares=[])
    await fleet.say(pools=(pool_stats("tx"),), troubles=(trouble("ip-1", "site-b", "550 blocked by policy"),))
    found = await eventually(lambda: (fleet.kubernetes.get("SendingIP", "ip-1").get("status") or {}).get("sites"), 45)
    assert (found[0]["site"], found[0]["reply"]) == ("site-b", "550 blocked by policy")
    assert fleet.sources["ip-1"].state == "active"
    limited = await eventually(
        lambda: condition(fleet.kubernetes.get("SenderPool", "tx"), "ScalingLimited")[1] in ("NoSpare", "CoolDown")
    )
    assert limited


async def test_it_says_no_when_the_list_is_the_trouble(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", "ip-2")
    sour = [source_stats(name, complained=40.0, delivered=6000.0) for name in ("ip-1", "ip-2")]
    acme = tenant_stats("acme", complained=80.0, delivered=12_000.0)
    await fleet.say(pools=(pool_stats("tx", ready=60_000, waiting=60_000),), sources=tuple(sour), tenants=(acme,))
    await eventually(
        lambda: condition(fleet.kubernetes.get("SenderPool", "tx"), "ScalingLimited") == ("True", "Reputation")
    )
    pool = fleet.kubernetes.get("SenderPool", "tx")
    message = next(each["message"] for each in pool["status"]["conditions"] if each["type"] == "ScalingLimited")
    assert message.startswith("reputation — more IPs will not help; complaints 0.")
    assert message.endswith("% from tenant acme; fix the list")

    def told() -> str:
        return next((each["message"] for each in fleet.kubernetes.all("Event") if each["reason"] == "Reputation"), "")

    assert "ready 60000" in await eventually(told)


async def test_replicas_are_what_kubectl_scale_says(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", "ip-2", replicas=2, scaling={"mode": "Manual"})
    fleet.kubernetes.change("SenderPool", "tx", spec={"replicas": 3})
    await eventually(lambda: len(fleet.kubernetes.all("Deployment")) == 3)
    await eventually(lambda: fleet.kubernetes.get("SenderPool", "tx")["status"]["replicas"] == 3)


async def test_a_source_whose_resource_is_deleted_gives_its_lane_back_and_goes_from_the_log(fleet: Fleet) -> None:
    await sending(fleet, "ip-1", "ip-2")
    fleet.kubernetes.delete("SendingIP", "ip-1")
    await eventually(lambda: fleet.sources["ip-1"].state == "retired")
    assert fleet.sources["ip-1"].lanes == ()
    await eventually(
        lambda: [each["metadata"]["name"] for each in fleet.kubernetes.all("Deployment")] == ["mailfleet-ip-2-1"]
    )
    assert condition(await eventually(lambda: missing_sources(fleet)), "Ready") == ("False", "SourcesMissing")


def missing_sources(fleet: Fleet) -> dict[str, Any] | None:
    found = fleet.kubernetes.get("SenderPool", "tx")
    return found if condition(found, "Ready")[0] == "False" else None


async def test_a_pool_that_is_deleted_leaves_no_lane_without_a_sender_while_mail_is_in_it(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    bus_log = fleet.log
    lane = fleet.sources["ip-1"].lanes[0]
    router = MemoryBus(bus_log, "router")
    await router.start()
    at = await router.append(topics.DISPATCH, lane, b"unit", b"dispatch")
    fleet.kubernetes.delete("SenderPool", "tx")
    # There is no garbage collector here; it would do this.
    fleet.kubernetes.delete("Deployment", f"mailfleet-ip-1-{lane}")
    await eventually(lambda: fleet.sources["ip-1"].state == "draining")
    again = await eventually(lambda: fleet.kubernetes.get("Deployment", f"mailfleet-ip-1-{lane}"))
    assert "ownerReferences" not in again["metadata"]
    await router.commit("senders", topics.DISPATCH, {lane: at + 1})
    await eventually(lambda: not fleet.kubernetes.all("Deployment"), 60)


async def test_another_operator_takes_over_and_they_never_act_at_once(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    second = await fleet.operator("operator-b")
    first = fleet.operators[0]
    assert (first.leading.leads(), second.leading.leads()) == (True, False)
    assert second.ready
    fleet.operators.remove(first)
    await first.drain()
    assert not first.leading.leads()
    await eventually(lambda: second.leading.leads(), 5)
    lease = fleet.kubernetes.get("Lease", "mailfleet-operator")["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("operator-b", 2)
    fleet.address("ip-7", "192.0.2.7")
    fleet.kubernetes.change("SenderPool", "tx", spec={"sources": [{"name": "ip-1"}, {"name": "ip-7"}]})
    await served(fleet, "ip-7")
    assert fleet.sources["ip-7"].lanes != fleet.sources["ip-1"].lanes


async def test_when_a_leader_dies_another_starts_after_its_time_and_not_before(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    second = await fleet.operator("operator-b")
    first = fleet.operators[0]
    died_at = asyncio.get_running_loop().time()
    first.die()
    while not second.leading.leads():
        assert asyncio.get_running_loop().time() - died_at < 40
        await asyncio.sleep(0.05)
    assert not first.leading.leads()
    assert asyncio.get_running_loop().time() - died_at >= 6
    fleet.kubernetes.delete("Deployment", "mailfleet-ip-1-0")
    await eventually(lambda: fleet.kubernetes.get("Deployment", "mailfleet-ip-1-0"))


async def test_a_leader_whose_lease_is_taken_stops_and_leads_again_when_it_is_free(fleet: Fleet) -> None:
    await sending(fleet, "ip-1")
    first = fleet.operators[0]
    lease = fleet.kubernetes.get("Lease", "mailfleet-operator")
    # Somebody else has it now; the leader's next renewal meets that.
    taken = {"holderIdentity": "somebody", "leaseDurationSeconds": 2}
    fleet.kubernetes.change("Lease", lease["metadata"]["name"], spec=taken)
    await eventually(lambda: not first.leading.leads(), 5)
    await eventually(lambda: first.leading.leads(), 20)


POLICY = {"version": 1, "limits": [{"name": "all", "per": ["site"], "cases": [{"message_rate": "100/m"}]}]}
TYPO = {"version": 1, "limits": [{"name": "all", "per": ["site"], "cases": [{"mesage_rate": "100/m"}]}]}


async def test_a_policy_is_rendered_for_the_routers_and_a_wrong_one_changes_nothing(fleet: Fleet) -> None:
    fleet.kubernetes.create("TrafficPolicy", "mine", spec={"policy": POLICY})
    await fleet.operator()
    found = await eventually(lambda: fleet.kubernetes.get("ConfigMap", "mailfleet-policy"))
    assert "message_rate: 100/m" in found["data"]["policy.yaml"]
    await eventually(
        lambda: condition(fleet.kubernetes.get("TrafficPolicy", "mine"), "InForce") == ("True", "Rendered")
    )
    fleet.kubernetes.change("TrafficPolicy", "mine", spec={"policy": TYPO})
    await eventually(
        lambda: condition(fleet.kubernetes.get("TrafficPolicy", "mine"), "Accepted") == ("False", "Invalid")
    )
    assert fleet.kubernetes.get("ConfigMap", "mailfleet-policy")["data"] == found["data"]


async def test_admission_refuses_a_wrong_policy_and_says_why(fleet: Fleet, tmp_path: Path) -> None:
    operator = await fleet.operator()
    client = {
        "url": f"https://127.0.0.1:{operator.webhook_port}/validate/trafficpolicies",
        "caBundle": bundle(tmp_path / "tls.crt"),
    }
    rule = {
        "apiGroups": ["mailfleet.dev"],
        "apiVersions": ["v1alpha1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["trafficpolicies"],
    }
    hook = {
        "name": "trafficpolicies.mailfleet.dev", "clientConfig": client, "rules": [rule], "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": fleet.kubernetes.namespace}},
    }  # fmt: skip
    fleet.kubernetes.create("Webhook", fleet.kubernetes.namespace, webhooks=[hook])

    def refused() -> str:
        try:
            fleet.kubernetes.create("TrafficPolicy", "wrong", spec={"policy": TYPO})
        except ApiError as error:
            return str(error.status.message)
        fleet.kubernetes.delete("TrafficPolicy", "wrong")
        return ""

    try:
        # The API server takes up a new webhook within a second or so.
        message = await eventually(refused)
        assert "denied the request" in message
        assert "message_rate" in message
        await asyncio.to_thread(lambda: fleet.kubernetes.create("TrafficPolicy", "right", spec={"policy": POLICY}))
    finally:
        fleet.kubernetes.delete("Webhook", fleet.kubernetes.namespace)
