"""A TrafficPolicy: is it right, which one is in force, and what the routers' file says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mailfleet_operator.decisions.conditions import FALSE, TRUE, Verdict
from mailfleet_operator.decisions.times import instant
from mailfleet_router.decisions.shaping.check import ERROR, check
from mailfleet_router.decisions.shaping.policy_file import Policy, dump, from_data, over
from mailfleet_router.decisions.shaping.values import PolicyError

FILE = "policy.yaml"
ACCEPTED, IN_FORCE = "Accepted", "InForce"
MOST_FINDINGS = 50


class Checked(NamedTuple):
    """A policy, looked at as `mailfleet policy check` does."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The condition Accepted."""
        if self.errors:
            return Verdict(FALSE, "Invalid", "; ".join(self.errors))
        return Verdict(TRUE, "Valid", f"{len(self.warnings)} warnings" if self.warnings else "nothing is wrong with it")


def checked(body: Mapping[str, Any], shipped: Policy) -> Checked:
    """What is wrong with the policy of a TrafficPolicy, put over the shipped one."""
    name = f"trafficpolicy/{body.get('metadata', {}).get('name', '')}"
    try:
        own = from_data(body.get("spec", {}).get("policy"), name)
        whole = own if own.traffic.base == "none" else over(own, shipped)
    except PolicyError as error:
        return Checked((str(error),), ())
    # What is wrong with the shipped policy is nothing that the author could mend.
    found = [finding for finding in check(whole) if finding.place.origin == name]
    errors = tuple(str(finding) for finding in found if finding.severity == ERROR)
    return Checked(errors, tuple(str(finding) for finding in found if finding.severity != ERROR))


def chosen(bodies: Iterable[Mapping[str, Any]], verdicts: Mapping[str, Checked]) -> str:
    """The name of the one that is in force: the oldest that is right (as in the Gateway API); empty: there is none."""
    right = [body["metadata"] for body in bodies if not verdicts[body["metadata"]["name"]].errors]
    oldest = min(right, key=lambda about: (instant(about.get("creationTimestamp")), about["name"]), default=None)
    return str(oldest["name"]) if oldest is not None else ""


def rendered(body: Mapping[str, Any]) -> str:
    """The file that the routers read: what the resource says, and nothing that was not said."""
    return (
        f"# From TrafficPolicy {body['metadata']['name']}, by the operator: edit that.\n{dump(body['spec']['policy'])}"
    )


def digest(text: str) -> str:
    """Tells two files apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_force(name: str, chosen_name: str, found: Checked) -> Verdict:
    """The condition InForce of the policy `name`."""
    if name == chosen_name:
        return Verdict(TRUE, "Rendered", "the routers' file says the same")
    if found.errors:
        return Verdict(FALSE, "Invalid", "it is not right; what was in force stays")
    return Verdict(FALSE, "NotTheOldest", f"TrafficPolicy {chosen_name} is older, and one is in force at a time")


def config_map(name: str, namespace: str, text: str) -> dict[str, Any]:
    """The ConfigMap that the routers mount."""
    labels = {"app.kubernetes.io/name": "mailfleet", "app.kubernetes.io/component": "policy"}
    about = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {"mailfleet.dev/digest": digest(text)},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {FILE: text}}


def review(request: Mapping[str, Any], shipped: Policy) -> dict[str, Any]:
    """The answer to an AdmissionReview (admission.k8s.io/v1) of a TrafficPolicy."""
    asked = request.get("request") or {}
    answer: dict[str, Any] = {"uid": asked.get("uid", ""), "allowed": True}
    body = asked.get("object")
    # What is being deleted, and changes to its status or labels, are not to fail for what was accepted once.
    if body and not body.get("metadata", {}).get("deletionTimestamp") and _changed(asked):
        found = checked(body, shipped)
        if found.errors:
            answer |= {
                "allowed": False,
                "status": {"code": 422, "reason": "Invalid", "message": "; ".join(found.errors)},
            }
        elif found.warnings:
            answer["warnings"] = [warning[:250] for warning in found.warnings[:10]]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


def _changed(asked: Mapping[str, Any]) -> bool:
    before = asked.get("oldObject") or {}
    return bool(before.get("spec") != (asked.get("object") or {}).get("spec"))
