"""A TrafficPolicy is looked at as `mailfleet policy check` does, and refused with the reason."""

from __future__ import annotations

from typing import Any

from mailfleet_operator.decisions.policies import checked, chosen, config_map, rendered, review
from mailfleet_router.decisions.shaping.policy_file import read
from mailfleet_router.shell.traffic import shipped

GOOD = {"version": 1, "limits": [{"name": "all", "per": ["site"], "cases": [{"message_rate": "100/m"}]}]}
TYPO = {"version": 1, "limits": [{"name": "all", "per": ["site"], "cases": [{"mesage_rate": "100/m"}]}]}
NEVER = {"version": 1, "providers": [{"name": "x", "mx": ["a.*.example"]}]}


def body(policy: object, name: str = "mine", created: str = "2026-11-22T10:00:00Z") -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": {"policy": policy}}


def test_a_right_policy_is_accepted_and_says_the_same_in_the_routers_file() -> None:
    assert checked(body(GOOD), shipped()).errors == ()
    text = rendered(body(GOOD))
    again = read(text, "policy.yaml").traffic
    assert again.limits[0].cases[0].message_rate == "100/m"
    assert config_map("x-policy", "mail", text)["data"]["policy.yaml"] == text


def test_a_misspelt_key_is_refused_with_the_right_one() -> None:
    found = checked(body(TYPO), shipped())
    assert "message_rate" in found.errors[0]


def test_what_never_matches_is_refused() -> None:
    assert "can never match" in checked(body(NEVER), shipped()).errors[0]


def test_what_is_no_policy_is_refused() -> None:
    for nothing in (None, "text", [], {"version": 2}):
        assert checked(body(nothing), shipped()).errors


def test_the_oldest_right_one_is_in_force() -> None:
    bodies = [
        body(GOOD, "young", "2026-11-22T12:00:00Z"),
        body(GOOD, "old", "2026-11-22T11:00:00Z"),
        body(TYPO, "wrong", "2026-11-22T10:00:00Z"),
    ]
    verdicts = {each["metadata"]["name"]: checked(each, shipped()) for each in bodies}
    assert chosen(bodies, verdicts) == "old"
    assert chosen(bodies[2:], verdicts) == ""


def asked(policy: object, before: object = None, **metadata: str) -> dict[str, Any]:
    request: dict[str, Any] = {"uid": "u-1", "object": body(policy)}
    request["object"]["metadata"] |= metadata
    if before is not None:
        request["oldObject"] = body(before)
    found: dict[str, Any] = review({"request": request}, shipped())["response"]
    return found


def test_admission_refuses_what_the_check_refuses_and_says_why() -> None:
    assert asked(GOOD) == {"uid": "u-1", "allowed": True}
    refused = asked(TYPO)
    assert refused["allowed"] is False
    assert "message_rate" in refused["status"]["message"]


def test_admission_lets_go_what_is_deleted_or_unchanged() -> None:
    assert asked(TYPO, deletionTimestamp="2026-11-22T10:00:00Z")["allowed"]
    assert asked(TYPO, before=TYPO)["allowed"]
    assert not asked(TYPO, before=GOOD)["allowed"]
