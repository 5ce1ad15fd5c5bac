"""The small decisions of ingest: content, deadlines, admission, placement, credentials, PROXY header, guessing."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.shards import Numbered
from mailfleet_core.model.site import partition_of
from mailfleet_ingest.decisions import content, credentials, placement, proxy, reply
from mailfleet_ingest.decisions.admission import Admission
from mailfleet_ingest.decisions.credentials import BadCredentials, Credential
from mailfleet_ingest.decisions.deadlines import Deadlines, Look, Overdue, Watch
from mailfleet_ingest.decisions.guessing import MAX_DELAY_SECONDS, MAX_REMEMBERED, Guesses

# --- content


def _slowly(block):
    """What `problem` must say, by lines."""
    if block.replace(b"\r\n", b"").count(b"\r") or block.replace(b"\r\n", b"").count(b"\n"):
        return reply.BARE_IN_CONTENT
    if b"\0" in block:
        return reply.NUL_IN_CONTENT
    return reply.LONG_LINE if any(len(line) > 8 for line in block.split(b"\r\n")) else None


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"x", b"xxxxxxxx", b"."]), max_size=40))
def test_the_check_of_a_whole_block_finds_what_a_check_by_lines_finds(parts):
    block = b"".join(parts) + b"\r\n"
    assert content.problem(block, 8) == _slowly(block)


@given(st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"x."]), max_size=12))
def test_dots_put_at_starts_of_lines_are_taken_away(lines):
    plain = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert content.unstuffed(stuffed) == plain


# --- deadlines

LIMITS = Deadlines(idle_seconds=10, session_seconds=100, min_bytes_per_second=500, grace_seconds=5, write_seconds=20)


def look(**facts):
    calm = {"waiting": False, "in_content": False, "commands": 0, "messages": 0, "received_bytes": 0, "unsent_bytes": 0}
    return Look(**{**calm, **facts})


def test_a_client_that_says_no_command_is_idle_even_if_it_sends_bytes():
    watch = Watch(0)
    assert watch.judge(look(received_bytes=1), LIMITS, 10) is None
    assert watch.judge(look(received_bytes=9), LIMITS, 11) == Overdue(reply.IDLE)


def test_commands_keep_a_session_alive_only_until_its_end():
    watch = Watch(0)
    for second in range(0, 101, 5):
        assert watch.judge(look(commands=second), LIMITS, second) is None
    assert watch.judge(look(commands=101), LIMITS, 101) == Overdue(reply.IDLE)


def test_content_slower_than_the_least_speed_ends_after_a_grace():
    watch = Watch(0)
    assert watch.judge(look(in_content=True), LIMITS, 0) is None
    assert watch.judge(look(in_content=True, received_bytes=100), LIMITS, 5) is None
    assert watch.judge(look(in_content=True, received_bytes=100), LIMITS, 6) == Overdue(reply.TOO_SLOW)


def test_content_that_keeps_the_least_speed_may_take_any_time():
    watch = Watch(0)
    for second in range(10_000):
        assert watch.judge(look(in_content=True, received_bytes=500 * second), LIMITS, second) is None


def test_a_client_that_waits_for_us_is_never_late():
    watch = Watch(0)
    for second in range(0, 1000, 10):
        assert watch.judge(look(waiting=True), LIMITS, second) is None


def test_a_client_that_reads_nothing_ends_without_an_answer():
    watch = Watch(0)
    assert watch.judge(look(unsent_bytes=1, waiting=True), LIMITS, 1) is None
    assert watch.judge(look(unsent_bytes=1, waiting=True), LIMITS, 22) == Overdue(None)


# --- admission


def test_connections_are_admitted_up_to_each_limit_and_again_after_one_left():
    admission = Admission(in_all=3, per_address=2, per_credential=1)
    assert [admission.admit(address) for address in "aab"] == [None] * 3
    assert admission.admit("c") == reply.TOO_MANY_CONNECTIONS
    admission.leave("b")
    assert admission.admit("a") == reply.TOO_MANY_CONNECTIONS
    assert admission.admit("c") is None


def test_a_credential_has_its_own_limit():
    admission = Admission(9, 9, per_credential=2)
    assert admission.admit_credential("app", 1) is None
    assert admission.admit_credential("app", 1) == reply.TOO_MANY_CONNECTIONS
    admission.leave_credential("app")
    assert admission.admit_credential("app", 1) is None


# --- placement

ENVELOPE = wire.Envelope(b"m" * 16, "a@b.example", "acme", "bulk", "default", wire.BodyRef(0, (1,), 9), 1.0, 2.0)


def to(*addresses):
    return [wire.Recipient(index, address) for index, address in enumerate(addresses)]


def test_recipients_of_one_site_are_one_unit_in_its_partition():
    placed = placement.place(ENVELOPE, to("x@B.example", "y@c.example"), {"b.example": "s", "c.example": "s"}, 50, 64)
    assert isinstance(placed, placement.OneSite)
    assert placed.partition == partition_of("s", 64)
    assert placed.entry.unit.site == "s"
    assert placed.entry.unit.unit_id == b"m" * 16 + b"\0\0"


def test_an_unknown_domain_is_a_site_of_its_own():
    placed = placement.place(ENVELOPE, to("x@B.example"), {}, 50, 64)
    assert isinstance(placed, placement.OneSite)
    assert placed.entry.unit.site == "b.example"


def test_recipients_of_several_sites_go_whole_to_a_router_with_the_sites_as_known_now():
    placed = placement.place(ENVELOPE, to("x@b.example", "y@c.example"), {"b.example": "s"}, 50, 64)
    assert isinstance(placed, placement.SeveralSites)
    assert placed.accepted.sites == ("s", "c.example")


def test_more_recipients_than_a_unit_may_have_go_to_a_router():
    placed = placement.place(ENVELOPE, to(*["x@b.example"] * 3), {}, 2, 64)
    assert isinstance(placed, placement.SeveralSites)


# --- credentials

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)


@given(st.dictionaries(names, st.tuples(names, st.lists(names, min_size=1, max_size=3)), max_size=3))
def test_the_file_gives_back_what_was_written(drawn):
    known = {
        name: Credential(name=name, tenant=tenant, hash=HASH, domains=tuple(domains), networks=("192.0.2.0/24",))
        for name, (tenant, domains) in drawn.items()
    }
    assert credentials.parse(credentials.render(known)) == known


def test_json_of_the_same_shape_is_read_too():
    text = json.dumps({"credential": [{"name": "a", "tenant": "t", "hash": HASH, "domains": ["*"]}]})
    assert credentials.parse(text)["a"].tenant == "t"


@pytest.mark.parametrize(
    "block",
    [
        'name = "a"\ntenant = "t"\nhash = "plain"\ndomains = ["*"]',
        f'name = "a"\ntenant = "t"\nhash = "{HASH}"\ndomains = []',
        f'name = ""\ntenant = "t"\nhash = "{HASH}"\ndomains = ["*"]',
        f'name = "a"\ntenant = "t"\nhash = "{HASH}"\ndomains = ["*"]\nnetworks = ["x"]',
        f'name = "a"\ntenant = "t"\nhash = "{HASH}"\ndomains = ["*"]\npasword = "x"',
        "name =",
    ],
)
def test_credentials_that_could_never_work_are_refused(block):
    with pytest.raises(BadCredentials):
        credentials.parse(f"[[credential]]\n{block}\n")


def test_a_credential_works_only_from_its_networks():
    credential = Credential(name="a", tenant="t", hash=HASH, domains=("*",), networks=("192.0.2.0/24", "2001:db8::/32"))
    assert credential.usable_from("192.0.2.9")
    assert credential.usable_from("2001:db8::9")
    assert not credential.usable_from("198.51.100.1")


# --- PROXY header

V2 = proxy.SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 10, 0, 0, 1]) + b"\x00\x01\x00\x19"


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 25\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5000 25\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", ""),
        (V2, "192.0.2.7"),
        (proxy.SIGNATURE + b"\x20\x00\x00\x00", ""),
    ],
)
def test_a_proxy_header_names_the_client_and_its_own_length(header, client):
    assert proxy.parse(header + b"EHLO x\r\n") == proxy.ProxyHeader(len(header), client)
    for cut in range(1, len(header)):
        assert proxy.parse(header[:cut]) is None


@pytest.mark.parametrize(
    "header",
    [b"EHLO x\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROXY " + b"x" * 200, V2[:13] + b"\x31" + V2[14:], b"PROXY TCP4\r\n"],
)
def test_what_is_no_proxy_header_is_refused(header):
    with pytest.raises(proxy.BadProxyHeader):
        proxy.parse(header)


# --- guessing


def test_each_wrong_password_doubles_the_wait_up_to_a_limit():
    guesses = Guesses()
    waits = [guesses.failed("192.0.2.1", b"app", 0.0) for _ in range(12)]
    assert all(later == min(2 * earlier, MAX_DELAY_SECONDS) for earlier, later in pairwise(waits))
    assert waits[-1] == MAX_DELAY_SECONDS


def test_the_right_password_and_time_end_the_suspicion():
    guesses = Guesses()
    first = guesses.failed("192.0.2.1", b"app", 0.0)
    guesses.succeeded("192.0.2.1", b"app")
    assert guesses.failed("192.0.2.1", b"app", 1.0) == first
    assert guesses.failed("192.0.2.1", b"app", 10_000.0) == first


def test_a_flood_of_names_is_not_remembered_for_ever():
    guesses = Guesses()
    for number in range(MAX_REMEMBERED + 10):
        guesses.failed("192.0.2.1", b"%d" % number, 0.0)
    assert len(guesses._failures) == MAX_REMEMBERED


def test_mail_for_a_hot_site_is_addressed_to_its_shard():
    known = Numbered(7, wire.ShardMap((("a",), ("b",)), (("", bytes([0, 1])),)))
    sites = set()
    for number in range(20):
        envelope = msgspec.structs.replace(ENVELOPE, message_id=b"%016d" % number)
        placed = placement.place(envelope, to("x@b.example"), {"b.example": "google"}, 50, 64, {"google": known})
        sites.add(placed.entry.unit.site)
        assert placed.partition == partition_of(placed.entry.unit.site, 64)
    assert sites == {"google#0/2.7", "google#1/2.7"}
