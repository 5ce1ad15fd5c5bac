"""The envelope's address grammar."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.smtp import address
from mailfleet_core.smtp.address import BadAddress

ATEXT = "abcXYZ019!#$%&'*+/=?^_`{|}~-"
atoms = st.text(ATEXT, min_size=1, max_size=8)
dot_strings = st.lists(atoms, min_size=1, max_size=4).map(".".join)
quoted = st.lists(
    st.one_of(
        st.sampled_from([chr(c) for c in range(32, 127) if chr(c) not in '"\\']),
        st.sampled_from(['\\"', "\\\\", "\\a"]),
    ),
    max_size=20,
).map(lambda parts: '"' + "".join(parts) + '"')
labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
domains = st.tuples(st.lists(labels, min_size=1, max_size=3), st.from_regex(r"[a-z]{2,6}", fullmatch=True)).map(
    lambda parts: ".".join([*parts[0], parts[1]])
)
mailboxes = st.tuples(st.one_of(dot_strings, quoted), domains).map("@".join)


@given(mailboxes)
def test_an_address_goes_out_byte_for_byte_as_it_came_in(mailbox):
    assert address.mailbox(mailbox.encode()).encode() == mailbox.encode()


@given(st.binary(max_size=80))
def test_any_bytes_are_an_address_unchanged_or_refused(data):
    try:
        text = address.mailbox(data)
    except BadAddress:
        return
    assert text.encode() == data


@given(st.text(max_size=60), domains)
def test_no_accepted_address_has_a_control_or_an_invisible_character(local, domain):
    try:
        text = address.mailbox(f"{local}@{domain}".encode("utf-8", "surrogatepass"))
    except BadAddress:
        return
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)


@given(mailboxes)
def test_a_path_in_brackets_splits_into_its_address_and_the_rest(mailbox):
    assert address.split_path(f"<{mailbox}> SIZE=1".encode()) == (mailbox.encode(), b" SIZE=1")


@pytest.mark.parametrize(
    "mailbox",
    [
        "a@b.example",
        "=?utf-8?b?YQ0KREFUQQ==?=@e.example",
        '"x> NOTIFY=NEVER"@e.example',
        '"a b"@e.example',
        '"a\\"b"@e.example',
        "a+tag@e.example",
        "用户@例え.example",
        "postmaster@bücher.example",
        "a@xn--bcher-kva.example",
        "a@host",
        "x" * 64 + "@e.example",
    ],
)
def test_what_the_grammar_allows_passes_unchanged(mailbox):
    assert address.mailbox(mailbox.encode()) == mailbox


@pytest.mark.parametrize(
    "mailbox",
    [
        b"",
        b"a",
        b"@b.example",
        b"a@",
        b"a b@c.example",
        b"a@b@c.example",
        b"a,b@c.example",
        b"a;b@c.example",
        b"a:b@c.example",
        b"(comment)a@c.example",
        b"<a@c.example>",
        b"@relay.example:a@c.example",
        b".a@c.example",
        b"a..b@c.example",
        b"a.@c.example",
        b"a\r\nDATA@c.example",
        b"a\0@c.example",
        b"a\x7f@c.example",
        b'"a\r"@c.example',
        b'"a"b@c.example',
        b"a@-c.example",
        b"a@c-.example",
        b"a@c..example",
        b"a@c.example.",
        b"a@c_d.example",
        b"a@127.0.0.1",
        b"a@[127.0.0.1]",
        b"a@[IPv6:::1]",
        b"\xff@c.example",
        "a\u202eb@c.example".encode(),
        "a\u200bb@c.example".encode(),
        "a\u00a0b@c.example".encode(),
        "a@c\u200d.example".encode(),
        "a@☃.example".encode(),
        b"x" * 65 + b"@c.example",
        b"a@" + b"d" * 64 + b".example",
        b"a@" + b".".join([b"d" * 60] * 5),
    ],
)
def test_what_is_no_mailbox_is_refused(mailbox):
    with pytest.raises(BadAddress):
        address.mailbox(mailbox)


@pytest.mark.parametrize("mailbox", [b"a@[192.0.2.1]", b"a@[IPv6:2001:db8::1]"])
def test_address_literals_pass_where_they_are_admitted(mailbox):
    assert address.mailbox(mailbox, literals=True).encode() == mailbox


@pytest.mark.parametrize("mailbox", [b"a@[192.0.2]", b"a@[IPv6:x]", b"a@[fe80::1]", b"a@[IPv6:fe80::1%eth0]", b"a@[]"])
def test_malformed_literals_are_refused_even_where_literals_are_admitted(mailbox):
    with pytest.raises(BadAddress):
        address.mailbox(mailbox, literals=True)


@pytest.mark.parametrize("argument", [b"a@b.example", b"<a@b.example", b'<"a@b.example>', b"<<a@b.example>>", b""])
def test_a_path_without_its_brackets_is_refused(argument):
    with pytest.raises(BadAddress):
        address.split_path(argument)
