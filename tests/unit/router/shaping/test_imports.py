"""Other systems' files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import imported
from mailfleet_router.decisions.shaping.check import ERROR, check
from mailfleet_router.decisions.shaping.import_kumomta import from_kumomta
from mailfleet_router.decisions.shaping.import_powermta import from_powermta
from mailfleet_router.decisions.shaping.limits import Limits, least
from mailfleet_router.decisions.shaping.policy_file import dump, read
from mailfleet_router.decisions.shaping.values import Facts, PolicyError, rate_per_second, seconds

KUMOMTA = """\
["default"]
connection_limit = 10
max_message_rate = "100/s"
enable_tls = "Opportunistic"

[["default".automation]]
regex = ['''temporarily deferred''', 'rate limited']
action = [
  {SetConfig={name="max_message_rate", value="1/minute"}}, {SetConfig={name="connection_limit", value=1}},
  {SetConfig={name="max_connection_rate", value="1/minute"}},
]
duration = "90m"

[provider."yahoo"]
match = [{MXSuffix=".yahoodns.net."}, {HostName="mx.y.example"}]
max_deliveries_per_connection = 20
provider_connection_limit = 5

[[provider."yahoo".automation]]
regex = "421 4\\\\.7\\\\.0 \\\\[TSS04\\\\]"
action = ["Suspend", "SuspendCampaign"]
trigger = {Threshold="2/hr"}
duration = "2 hours"

[[provider."gone".automation]]
regex = "(?<unclosed"
action = "Bounce"

["example.com"]
connection_limit = 3
max_connection_rate = "local:100/min,max_burst=3"

["example.com".sources."ip-1"]
connection_limit = 1
idle_timeout = "60s"
"""


def kumomta(*texts):
    return from_kumomta(tuple((f"{number}.toml", text) for number, text in enumerate(texts)))


def effective(policy, **facts):
    return least(Limits(read(dump(policy), "f").traffic).effective(Facts(**facts)))


def test_kumomtas_values_are_those_that_its_sections_would_give():
    policy = kumomta(KUMOMTA).policy
    assert effective(policy, domain="other.example").concurrency == 10
    yahoo = effective(policy, provider="yahoo")
    assert (yahoo.concurrency, yahoo.messages_per_connection, yahoo.message_rate) == (5, 20, 100.0)
    assert effective(policy, domain="example.com", source="ip-2").concurrency == 3
    special = effective(policy, domain="example.com", source="ip-1")
    assert (special.concurrency, special.message_rate) == (1, 100.0)
    assert special.connection_rate == pytest.approx(100 / 60)


def test_kumomtas_automation_becomes_rules_of_ours_the_special_ones_first():
    assert kumomta(KUMOMTA).policy["rules"] == [
        {"name": "yahoo-pause", "if": {"provider": ["yahoo"]}, "code": "421", "enhanced": "4.7.0", "text": r"\[TSS04\]",
         "effect": "pause", "scope": "source_site", "threshold": "2/1h", "ttl": "2h"},
        {"name": "default-slow", "text": "temporarily deferred", "effect": "slow", "scope": "source_site", "ttl": "90m",
         "to": {"rate": "1/m", "concurrency": 1}},
        {"name": "default-slow-2", "text": "rate limited", "effect": "slow", "scope": "source_site", "ttl": "90m",
         "to": {"rate": "1/m", "concurrency": 1}},
    ]  # fmt: skip


def test_what_kumomta_says_and_we_cannot_is_told_with_its_line_and_why():
    left = {str(line) for line in kumomta(KUMOMTA).left_out}
    for said in (
        "0.toml:4: [default] enable_tls = 'Opportunistic': TLS is a setting of a [[route]]",
        "0.toml:21: [provider.yahoo.automation] action = 'SuspendCampaign': no effect of ours does this",
        "0.toml:25: [provider.gone]: it has no `match` in any file, so nothing could ever be it",
        "0.toml:35: [example.com.sources.ip-1] idle_timeout = '60s': timeouts are settings of [sender]",
    ):
        assert said in left, left
    assert any("0.toml:31" in line and "here for the whole fleet" in line for line in left)
    assert any("is no regular expression: " in line for line in left)
    assert any("halves, and rises again" in line for line in left)


def test_a_threshold_of_kumomta_that_ours_cannot_be_is_told_and_left_out():
    automation = '[["default".automation]]\nregex = "busy"\naction = "Suspend"\ntrigger = {Threshold="5000/hr"}\n'
    found = kumomta(automation)
    assert "threshold" not in found.policy["rules"][0]
    assert "1 to 1000" in str(found.left_out[0])
    read(dump(found.policy), "f")


def test_what_kumomta_sets_without_an_end_is_halved_and_told():
    automation = '[["default".automation]]\nregex = "busy"\naction = {SetConfig={name="connection_limit", value=1}}\n'
    found = kumomta(automation)
    assert found.policy["rules"][0].keys() == {"name", "text", "effect", "scope"}
    assert "there it sets 1 for a time" in str(found.left_out[0])


def test_an_expression_that_means_nothing_in_lower_case_is_left_out():
    found = from_powermta(
        "pmta", "<domain *>\n smtp-pattern-list l\n</domain>\n<smtp-pattern-list l>\n reply /[Z-a]/ mode=backoff\n"
    )
    assert [str(left) for left in found.left_out] == [
        "pmta:5: reply /[Z-a]/ mode=backoff: '[Z-a]' is no regular expression: bad character range z-a at position 1"
    ]
    read(dump(found.policy), "f")


def test_a_dot_at_the_end_of_a_kumomta_pattern_is_taken_off():
    assert kumomta(KUMOMTA).policy["providers"][0] == {"name": "yahoo", "mx": ["*.yahoodns.net", "mx.y.example"]}


def test_later_kumomta_files_are_put_over_earlier_ones():
    more = '["example.com"]\nmax_message_rate = "5/s"\n'
    assert effective(kumomta(KUMOMTA, more).policy, domain="example.com").concurrency == 3
    assert effective(kumomta(KUMOMTA, more).policy, domain="example.com").message_rate == 5.0
    replaced = kumomta(KUMOMTA, more + "replace_base = true\n").policy
    assert effective(replaced, domain="example.com").concurrency == 10


def test_what_is_not_toml_is_refused():
    with pytest.raises(PolicyError, match="not TOML"):
        kumomta("[")


POWERMTA = """\
# sending
domain-macro hotmail hotmail.com, msn.com
http-mgmt-port 8080
<domain *>
  max-smtp-out 20
  max-msg-rate unlimited
  retry-after 10m,20m,1h
  bounce-after 4d12h
  smtp-pattern-list common
  backoff-to-normal-after 2h
</domain>
<domain $hotmail>
  queue-to hotmail.queue
</domain>
<domain hotmail.queue>
  max-smtp-out 4   # few
  max-msg-rate 500/h
  retry-after 30m
  smtp-pattern-list blocking
  backoff-max-msg-rate 10/m
</domain>
<domain [*.]yahoo.com>
  max-msg-per-connection 20
  max-connect-rate 1/2min
</domain>
<virtual-mta one>
  smtp-source-host 192.0.2.1 one.example
  <domain yahoo.com>
    max-smtp-out 2
  </domain>
</virtual-mta>
<virtual-mta-pool both>
  virtual-mta one
  virtual-mta two
</virtual-mta-pool>
<smtp-pattern-list common>
  reply /try again later/ mode=backoff
  reply /^550 5\\.7\\.1 .*\\/block/ disable-source-ip reenable-after=1h
  reply /x/ mode=normal
</smtp-pattern-list>
<smtp-pattern-list blocking>
  reply /exceeded the (rate|limit)/ mode=backoff backoff-to-normal-after=30m
</smtp-pattern-list>
"""


def test_powermtas_values_are_those_that_its_domains_would_have():
    policy = from_powermta("pmta", POWERMTA).policy
    assert effective(policy, domain="other.example").concurrency == 20
    assert effective(policy, domain="other.example").message_rate is None
    msn = effective(policy, domain="msn.com")
    assert (msn.concurrency, msn.message_rate) == (4, pytest.approx(500 / 3600))
    yahoo = effective(policy, domain="x.yahoo.com")
    assert (yahoo.concurrency, yahoo.messages_per_connection, yahoo.connection_rate) == (20, 20, pytest.approx(1 / 120))
    assert effective(policy, domain="yahoo.com", source="one").concurrency == 2


def test_powermtas_patterns_become_rules_the_special_ones_first():
    assert from_powermta("pmta", POWERMTA).policy["rules"] == [
        {"name": "blocking-slow", "if": {"domain": ["hotmail.queue", "hotmail.com", "msn.com"]},
         "text": "exceeded the (rate|limit)", "effect": "slow", "scope": "source_site", "ttl": "30m"},
        {"name": "common-slow", "text": "try again later", "effect": "slow", "scope": "source_site", "ttl": "2h"},
        {"name": "common-disable_source", "code": "550", "enhanced": "5.7.1", "text": ".*/block", "effect": "disable_source",
         "scope": "source", "ttl": "1h"},
    ]  # fmt: skip


def test_powermtas_pools_and_retry_times_are_ours():
    policy = from_powermta("pmta", POWERMTA).policy
    assert policy["pools"] == [{"name": "both", "sources": [{"source": "one"}, {"source": "two"}]}]
    assert policy["ladders"] == [{"stream": "bulk", "retry": ["10m", "20m", "1h"], "expire": "4d12h"}]


def test_what_powermta_says_and_we_cannot_is_told_with_its_line_and_why():
    left = [str(line) for line in from_powermta("pmta", POWERMTA).left_out]
    assert left == [
        "pmta:3: http-mgmt-port 8080: it is not about how much at a time",
        "pmta:7: retry-after 10m,20m,1h: it is put on the stream `bulk`; write ladders for the others",
        "pmta:18: retry-after 30m: retry times belong to a stream, not to a receiver",
        "pmta:20: backoff-max-msg-rate 10/m: back-off halves the rate, probes and rises by itself; "
        "there is no second set of limits",
        "pmta:27: smtp-source-host 192.0.2.1 one.example: addresses and EHLO names belong to a [[source]] of the settings",
        "pmta:39: reply /x/ mode=normal: no effect of ours does this",
    ]


@pytest.mark.parametrize("policy", [kumomta(KUMOMTA).policy, from_powermta("pmta", POWERMTA).policy])
def test_an_imported_policy_can_be_read_and_has_no_errors(policy):
    findings = check(read(dump(policy), "f"))
    assert [finding for finding in findings if finding.severity == ERROR] == []


@given(st.text(alphabet="<>/abdomain* $=\n#-1hm", max_size=80))
def test_any_text_can_be_looked_at_as_powermta(text):
    read(dump(from_powermta("pmta", text).policy), "f")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("5/hr", "5/h"),
        ("1/2min", "1/2m"),
        ("1,000/day", "1000/d"),
        ("100 / 10 seconds", "100/10s"),
        ("5", None),
        ("1/0h", None),
        ("1.2.3/s", None),
    ],
)
def test_rates_of_others_are_written_as_ours(theirs, ours):
    assert imported.rate(theirs) == ours
    assert ours is None or rate_per_second(ours) > 0


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("2 hours", "2h"), ("90m", "90m"), ("4d12h", "4d12h"), ("30", "30s"), ("soon", None), ("2 moons", None)],
)
def test_durations_of_others_are_written_as_ours(theirs, ours):
    assert imported.duration(theirs) == ours
    assert ours is None or seconds(ours) > 0
