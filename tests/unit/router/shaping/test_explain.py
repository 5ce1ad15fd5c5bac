"""Which limits hold, and who says so."""

import json
from importlib.resources import files

import msgspec

from mailfleet_router.decisions.shaping.explain import explain, lines
from mailfleet_router.decisions.shaping.limits import Limits
from mailfleet_router.decisions.shaping.policy_file import over, read
from mailfleet_router.decisions.shaping.values import Facts

SHIPPED = read((files("mailfleet_router") / "policy" / "traffic.yaml").read_text(encoding="utf-8"), "traffic.yaml")

OWN = read(
    """\
version: 1
limits:
  - name: shop
    per: [tenant, site]
    cases:
      - if: {tenant: [shop]}
        message_rate: 100/m
        burst: 7
  - name: yahoo
    per: [source, site]
    cases:
      - {concurrency: 5, messages_per_connection: 20, message_rate: 10/s}
""",
    "own.yaml",
)
POLICY = over(OWN, SHIPPED)
FACTS = Facts(tenant="shop", source="ip-1", site="yahoo", provider="yahoo", domain="yahoo.com")


def explained(facts=FACTS):
    return explain(POLICY, Limits(POLICY.traffic), facts)


def test_of_each_quantity_one_value_decides_and_the_others_say_why_not():
    found = explained()
    for quantity in {each.quantity for each in found}:
        values = [each for each in found if each.quantity == quantity]
        assert [each.decides for each in values] == [True] + [False] * (len(values) - 1)
        assert all(each.why_not for each in values[1:])


def test_the_lines_name_value_limit_case_place_source_and_keeper():
    assert lines(explained(), FACTS) == (
        "Limits for tenant shop, source ip-1, site yahoo, provider yahoo, domain yahoo.com:",
        "  message_rate 100/m: shop, case 1, own.yaml:7; kept by the router",
        "      not 10/s: yahoo, case 1, own.yaml:12: shop allows less: 100/m; "
        "but it counts other mail too, and may be used up first",
        "  concurrency 5: yahoo, case 1, own.yaml:12; kept by the sender",
        f"      not 10: receivers, case 1, {POLICY.place('limits', 2, 'cases', 0, 'concurrency')} "
        "[https://help.yahoo.com/kb/SLN3433.html, 2026-11-22]: yahoo allows less: 5",
        "  messages_per_connection 20: yahoo, case 1, own.yaml:12; kept by the sender",
        f"      not 20: receivers, case 1, {POLICY.place('limits', 2, 'cases', 0, 'messages_per_connection')} "
        "[https://help.yahoo.com/kb/SLN3433.html, 2026-11-22]: the same as yahoo",
        "  burst 7: shop, case 1, own.yaml:8; kept by the router",
    )


def test_the_same_is_json():
    values = json.loads(json.dumps(msgspec.to_builtins(explained())))
    assert values[0] == {
        "quantity": "message_rate",
        "value": "100/m",
        "limit": "shop",
        "case": 1,
        "place": "own.yaml:7",
        "kept_by": "router",
        "counter": "shop|shop|yahoo",
        "decides": True,
    }


def test_a_burst_of_a_rate_that_does_not_decide_does_not_decide():
    slow = over(read(OWN_BURST, "own.yaml"), SHIPPED)
    found = explain(slow, Limits(slow.traffic), FACTS)
    bursts = [each for each in found if each.quantity == "burst"]
    assert [(each.decides, each.why_not) for each in bursts] == [
        (False, "it belongs to a message_rate that does not decide")
    ]


OWN_BURST = """\
version: 1
limits:
  - {name: fast, cases: [{message_rate: 10/s, burst: 50}]}
  - {name: slow, cases: [{message_rate: 1/s}]}
"""


def test_a_suspension_in_the_policy_is_shown():
    policy = read("version: 1\nlimits:\n- {name: stop, cases: [{suspend: true}]}\n", "own.yaml")
    found = explain(policy, Limits(policy.traffic), Facts())
    assert lines(found, Facts()) == (
        "Limits for anything:",
        "  suspend True: stop, case 1, own.yaml:3; kept by the router",
    )


def test_where_no_limit_holds_the_lines_say_so():
    policy = read("version: 1", "own.yaml")
    assert lines(explain(policy, Limits(policy.traffic), Facts()), Facts()) == ("Limits for anything:", "  none")
