"""Kafka's batches as we write and read them, held against kafka-python's reading and writing of them."""

from __future__ import annotations

from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

from mailfleet_core.bus import kafka_fetch, kafka_format, kafka_produce
from mailfleet_core.bus.kafka_fetch import Want
from mailfleet_core.bus.kafka_format import Entry, Producer
from mailfleet_core.bus.port import Record

NOW_MS = 1_800_000_000_000
PRODUCER = Producer(17, 3, 250)

values = st.none() | st.binary(max_size=300) | st.integers(8190, 20_000).map(bytes)
entries = st.lists(st.builds(Entry, st.binary(max_size=200), values, st.binary(max_size=80)), min_size=1, max_size=60)


def at(base: int, data: bytes) -> bytes:
    """A batch as the broker keeps it: with the offset it has in the log."""
    return base.to_bytes(8, "big") + data[8:]


def records(base: int, written: list[Entry]) -> list[Record]:
    return [Record(base + number, entry.key, entry.tag, entry.value) for number, entry in enumerate(written)]


def signed(data: bytearray) -> bytes:
    """The batch with the checksum that it has after a change by the broker."""
    data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def spelt(base: int, written: list[Entry]) -> bytes:
    return at(base, b"".join(kafka_format.batch(written, PRODUCER, NOW_MS)))


@given(written=entries, base=st.integers(0, 2**62))
def test_what_is_written_is_what_is_read(written: list[Entry], base: int) -> None:
    data = spelt(base, written)
    assert kafka_format.read(data, base) == (records(base, written), base + len(written), len(data))


@given(written=entries)
def test_kafka_python_reads_our_batches_as_we_meant_them(written: list[Entry]) -> None:
    (found,) = MemoryRecords(spelt(0, written))
    assert found.validate_crc()
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == PRODUCER
    seen = [(record.offset, record.key, dict(record.headers).get("t", b""), record.value) for record in found]
    assert seen == [tuple(record) for record in records(0, written)]


@given(written=entries, compressed=st.booleans())
def test_batches_of_others_are_read_also_when_they_are_compressed(written: list[Entry], compressed: bool) -> None:
    builder: Any = MemoryRecordsBuilder(magic=2, compression_type=1 if compressed else 0, batch_size=1 << 30)
    for key, value, tag in written:
        headers = [("other", b"x"), ("t", tag)] if tag else [("other", b"x")]
        builder.append(timestamp=NOW_MS + 5, key=key, value=value, headers=headers)
    builder.close()
    assert kafka_format.read(at(7, bytes(builder.buffer())), 7).records == records(7, written)


@given(written=entries, data=st.data())
def test_records_before_the_wanted_offset_are_left_out(written: list[Entry], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(100, 100 + len(written)))
    read = kafka_format.read(spelt(100, written), wanted)
    assert read.records == records(100, written)[wanted - 100 :]
    assert read.next_offset == 100 + len(written)


@given(first=entries, second=entries, data=st.data())
def test_a_batch_that_was_cut_off_is_not_there(first: list[Entry], second: list[Entry], data: st.DataObject) -> None:
    whole = spelt(0, first)
    part = spelt(len(first), second)
    part = part[: data.draw(st.integers(0, len(part) - 1))]
    assert kafka_format.read(whole + part, 0) == (records(0, first), len(first), len(whole))


@given(written=entries, data=st.data())
def test_a_damaged_batch_is_not_read(written: list[Entry], data: st.DataObject) -> None:
    whole = bytearray(spelt(0, written))
    whole[data.draw(st.integers(21, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptRecordError):
        kafka_format.read(bytes(whole), 0)


def test_a_compacted_batch_leads_beyond_what_was_dropped_from_its_end() -> None:
    written = [Entry(b"a", b"1", b""), Entry(b"b", b"2", b"")]
    data = bytearray(spelt(10, written))
    data[23:27] = (9).to_bytes(4, "big")  # The broker keeps the last offset's delta when it drops records.
    assert kafka_format.read(signed(data), 10).next_offset == 20


def test_markers_of_transactions_are_passed_over() -> None:
    data = bytearray(spelt(4, [Entry(b"marker", b"commit", b"")]))
    data[22] |= kafka_format.CONTROL
    assert kafka_format.read(signed(data), 4) == ([], 5, len(data))


def test_an_answer_to_produce_is_understood_with_what_it_says_about_single_records() -> None:
    text = b"\x00\x03bad"
    one = (2).to_bytes(4, "big") + (87).to_bytes(2, "big") + bytes(24) + (1).to_bytes(4, "big") + bytes(4) + text + text
    two = (3).to_bytes(4, "big") + bytes(2) + (99).to_bytes(8, "big") + bytes(20) + b"\xff\xff"
    answer = (1).to_bytes(4, "big") + b"\x00\x01q" + (2).to_bytes(4, "big") + one + two + bytes(4)
    assert kafka_produce.parse(answer) == {("q", 2): (87, 0), ("q", 3): (0, 99)}


def test_an_answer_to_fetch_is_understood_whatever_it_says_of_transactions() -> None:
    written = [Entry(b"k", b"v", b"t")]
    data = spelt(5, written)
    head = (0).to_bytes(4, "big") + bytes(2) + (6).to_bytes(8, "big") * 2 + bytes(8)
    aborted = (1).to_bytes(4, "big") + bytes(16) + b"\xff" * 4
    failed = (1).to_bytes(4, "big") + (6).to_bytes(2, "big") + b"\xff" * 24 + b"\xff" * 4 + b"\xff" * 4 + b"\xff" * 4
    topic = b"\x00\x01b" + (2).to_bytes(4, "big") + head + aborted + len(data).to_bytes(4, "big") + data + failed
    found = kafka_fetch.parse(bytes(10) + (1).to_bytes(4, "big") + topic, {("b", 0): 5, ("b", 1): 8})
    assert found["b", 0].records == records(5, written)
    assert (found["b", 0].end, found["b", 0].next_offset) == (6, 6)
    assert (found["b", 1].error, found["b", 1].next_offset) == (6, 8)


def test_a_request_without_a_wait_asks_for_what_is_there() -> None:
    asked = kafka_fetch.request([Want("b", 0, 5, 100), Want("q", 1, 6, 100), Want("b", 2, 7, 100)], 0, 1000)
    assert asked[4:12] == bytes(8)
    assert asked.count(b"\x00\x01b\x00\x00\x00\x02") == 1
    assert asked == kafka_fetch.request([Want("b", 0, 5, 100), Want("b", 2, 7, 100), Want("q", 1, 6, 100)], 0, 1000)
