"""The reply parser: any bytes, however they come."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.reply import MAX_TEXT, Reply
from mailfleet_core.smtp.reply import MAX_LINES, MAX_REPLY_BYTES, ReplyParser

plausible = st.builds(
    lambda code, mark, text, end: code + mark + text + end,
    st.sampled_from([b"250", b"354", b"550", b"421", b"2_5", b"999", b"", b"25"]),
    st.sampled_from([b" ", b"-", b"", b"\t"]),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"5.1.1 no such user", b"2.0.0 Ok", b"x" * 3000])),
    st.sampled_from([b"\r\n", b"\n", b""]),
)
streams = st.one_of(st.binary(max_size=400), st.lists(plausible, max_size=8).map(b"".join))


def parse(*pieces: bytes) -> list[Reply]:
    parser = ReplyParser()
    return [reply for piece in pieces for reply in parser.feed(piece)]


@given(streams, st.lists(st.integers(min_value=0, max_value=5000), max_size=10))
def test_the_same_replies_come_out_however_the_bytes_are_split(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert parse(*pieces) == parse(stream) == parse(*(bytes([byte]) for byte in stream))


@given(streams)
def test_every_text_is_printable_bounded_and_utf_8(stream: bytes) -> None:
    for reply in parse(stream):
        assert reply.text.isprintable()
        assert len(reply.text) <= MAX_TEXT
        assert json.loads(json.dumps(reply.text, ensure_ascii=False).encode()) == reply.text
        assert reply.code == 0 or 200 <= reply.code <= 599
        assert not reply.enhanced or reply.code == 0 or reply.enhanced[0] == str(reply.code)[0]


@given(st.lists(streams, max_size=6))
def test_after_what_is_no_reply_nothing_comes_any_more(pieces: list[bytes]) -> None:
    replies = parse(*pieces)
    assert all(reply.code for reply in replies[:-1])


def test_memory_is_bounded_however_long_a_line_or_a_reply_is() -> None:
    for flood in (b"x" * 10_000, b"250-" + b"y" * 9_996, b"250-a\r\n" * 1500):
        parser = ReplyParser()
        replies = [reply for _ in range(100) for reply in parser.feed(flood)]
        assert len(replies) <= 1
        assert len(parser._partial) + sum(map(len, parser._lines)) <= MAX_REPLY_BYTES
        assert len(parser._lines) <= MAX_LINES


def test_a_long_line_is_cut_and_a_long_reply_keeps_its_first_lines() -> None:
    (reply,) = parse(b"250 " + b"z" * 5000 + b"\r\n")
    assert reply.code == 250
    assert len(reply.text) == MAX_TEXT
    (reply,) = parse(b"250-a\r\n" * 500 + b"250 end\r\n")
    assert reply.code == 250


def test_the_enhanced_code_is_taken_out_of_every_line_where_its_class_is_right() -> None:
    assert parse(b"550-5.1.1 no\r\n550 5.1.1 such user\r\n") == [Reply(550, "5.1.1", "no such user")]
    assert parse(b"550 2.1.1 odd\r\n") == [Reply(550, "", "2.1.1 odd")]
    assert parse(b"250\r\n250 \r\n250 ok\n") == [Reply(250, "", ""), Reply(250, "", ""), Reply(250, "", "ok")]


def test_one_reply_with_two_codes_is_none() -> None:
    assert [reply.code for reply in parse(b"250-a\r\n550 b\r\n250 c\r\n")] == [0]


def test_hostile_text_is_escaped() -> None:
    (reply,) = parse(b"550 \x1b[2J\x00bad\xff\rtext\xe2\x80\xae\r\n")
    assert reply.text == "\\x1b[2J\\x00bad\\xff\\rtext\\u202e"
