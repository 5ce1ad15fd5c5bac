"""The files of the embedded log: what survives a cut at any place, and what compaction keeps."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mailfleet_core.bus import embedded_format as form
from mailfleet_core.bus.embedded_compaction import Damaged, compact
from mailfleet_core.bus.embedded_feed import read_from
from mailfleet_core.bus.embedded_groups import Group
from mailfleet_core.bus.embedded_housekeeping import plan
from mailfleet_core.bus.embedded_journal import REFUSED, Journal
from mailfleet_core.bus.embedded_notes import Append, Notes, cover_of, notes_append
from mailfleet_core.bus.embedded_segment import Segment, key_of, write_zeros
from mailfleet_core.bus.embedded_wire import TopicSpec
from mailfleet_core.bus.embedded_writer import Item, Writer, pause_after
from mailfleet_core.bus.port import Record

QUEUE, EVENTS = 1, 2
TOPICS = [TopicSpec("queue", 4, True, 0, 0, False), TopicSpec("events", 4, False, 100, 0, False)]
DAY_MILLISECONDS = 86_400_000


class Clock:
    """Milliseconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def batch(sequence: int, *found: tuple[bytes, bytes | None], topic: int = QUEUE, partition: int = 0) -> Append:
    entries = [form.entry(delta, key, b"t", value) for delta, (key, value) in enumerate(found)]
    return Append.parse(form.sign((topic, partition, 7, sequence, len(found)), entries) + b"".join(entries))


@given(st.binary(max_size=300), st.integers(0, 399), st.integers(1, 255))
def test_a_body_is_taken_whole_or_not_at_all(value: bytes, place: int, change: int) -> None:
    made = batch(1, (b"k", value), partition=2)
    head, _ = form.head(len(made.payload), made.crc, 8192, 5, 0)
    whole = head + made.payload
    assert form.sole(memoryview(whole + b"rest"), (QUEUE, 2, 8192)) == value
    for other in ((EVENTS, 2, 8192), (QUEUE, 1, 8192), (QUEUE, 2, 8191)):
        assert form.sole(memoryview(whole), other) is None
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= change
    # The chain and the time are not part of what a reader relies on.
    assert form.sole(memoryview(damaged), (QUEUE, 2, 8192)) in (value, None)
    assert form.sole(memoryview(whole)[: place % len(whole)], (QUEUE, 2, 8192)) is None


def opened(directory: Path, clock: Clock | None = None, size: int = 1 << 20) -> Journal:
    return Journal(directory, size, clock or Clock())


def everything(journal: Journal, topic: int = QUEUE, partition: int = 0) -> list[Record]:
    """All records of a partition, as a tail from 0 gets them."""
    found: list[Record] = []
    start, key = 0, key_of(topic, partition)
    while True:
        data, after = read_from(journal, key, TOPICS[topic - 1].compacted, start, 1000)
        if not data:
            return found
        position = 0
        while position < len(data):
            found += form.records(data, position)
            position += form.check(data, position).length
        start = after


# --- torn and damaged files ------------------------------------------------------------------------------------------
def test_a_torn_last_batch_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"first")), batch(2, (b"b", b"second"))])
    kept = journal.address
    journal.write([batch(3, (b"c", b"third"), (b"d", None))])
    file, end, base = journal.current.path.name, journal.address, journal.current.base
    journal.close()
    whole = (tmp_path / "log" / file).read_bytes()
    for cut in range(kept - base, end - base):
        again = tmp_path / "cut"
        shutil.copytree(tmp_path / "log", again)
        (again / file).write_bytes(whole[:cut] + bytes(len(whole) - cut))
        recovered = opened(again)
        assert [record.value for record in everything(recovered)] == [b"first", b"second"]
        assert recovered.address == kept
        recovered.close()
        shutil.rmtree(again)


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"key", b"some value"))])
    journal.write([batch(2, (b"key", b"another"))])
    view = bytearray(journal.current.path.read_bytes())
    second = list(form.scan(memoryview(bytes(view)), journal.current.base, dense=True))[-1]
    for position in range(second.position, second.position + second.length):
        for bit in range(8):
            damaged = bytearray(view)
            damaged[position] ^= 1 << bit
            found = list(form.scan(memoryview(bytes(damaged)), journal.current.base, dense=True))
            assert found[-1].position < second.position
    journal.close()


def test_what_a_torn_group_left_behind_never_comes_back(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1"))])
    at = journal.address - journal.current.base
    journal.write([batch(2, (b"a", b"2")), batch(3, (b"a", b"3"))])
    path, length = journal.current.path, form.HEAD.size + len(batch(2, (b"a", b"2")).payload)
    journal.close()
    torn = bytearray(path.read_bytes())
    torn[at : at + length] = bytes(length)
    path.write_bytes(torn)
    recovered = opened(tmp_path / "log")
    # The same length at the same place: what follows in the file would be a valid batch at its own address.
    recovered.write([batch(2, (b"b", b"9"))])
    recovered.close()
    assert [record.value for record in everything(opened(tmp_path / "log"))] == [b"1", b"9"]


def test_a_segment_that_was_made_but_never_synced_is_no_obstacle(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1"))])
    address = journal.address
    journal.close()
    (tmp_path / "log" / f"{address:020d}.raw").write_bytes(bytes(1 << 16))
    recovered = opened(tmp_path / "log")
    assert recovered.write([batch(2, (b"a", b"2"))]) == [address]
    assert [record.value for record in everything(recovered)] == [b"1", b"2"]


# --- sending again ---------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.data())
@hypothesis_settings(max_examples=50, deadline=None)
def test_a_batch_sent_again_after_a_crash_is_written_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("log")
    batches = [batch(number, *[(b"k", b"%d" % number)] * size) for number, size in enumerate(sizes, 1)]
    journal = opened(directory)
    first: list[int] = []
    for item in batches[: data.draw(st.integers(0, len(batches)))]:
        if data.draw(st.booleans()):
            journal.seal()
        first += journal.write([item])
    journal.close()
    again = opened(directory)
    acknowledged = data.draw(st.integers(0, len(first)))
    second = again.write(batches[acknowledged:])
    assert second[: len(first) - acknowledged] == first[acknowledged:]
    expected = [b"%d" % number for number, size in enumerate(sizes, 1) for _ in range(size)]
    assert [record.value for record in everything(again)] == expected
    again.close()


@pytest.mark.parametrize("size", [1, 4096, 3 << 20, (1 << 20) + 4097])
def test_a_segment_made_ahead_is_zeros_to_its_last_byte(tmp_path: Path, size: int) -> None:
    write_zeros(tmp_path / "spare", size)
    assert (tmp_path / "spare").read_bytes() == bytes(size)


def test_a_file_never_grows_beyond_what_was_made_ahead(tmp_path: Path) -> None:
    # A size that is no number of whole pages: writes are filled up to the end of their page.
    journal = opened(tmp_path / "log", size=(1 << 20) + 100)
    for sequence in range(1, 60):
        journal.prepare()
        journal.write([batch(sequence, (b"k%d" % sequence, b"v" * 99_999))])
    assert len(journal.segments) > 2
    assert all(segment.path.stat().st_size == segment.size for segment in journal.segments)
    journal.close()
    assert len(everything(opened(tmp_path / "log"))) == 59


def test_what_a_record_refers_to_is_durable_before_the_record_is_in_the_file(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"k", b"first"))])
    before: list[tuple[list[int], bytes]] = []

    def make_durable(producers: Collection[int]) -> None:
        at = journal.address - journal.current.base
        before.append((list(producers), journal.current.path.read_bytes()[at : at + 100]))

    journal.before_write = make_durable
    journal.write([notes_append(Notes()), batch(2, (b"k", b"second"))])
    assert before == [([7], bytes(100))]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_group_waits_for_company_only_when_there_is_some(records: int, most: float) -> None:
    pause = pause_after(records, most)
    assert 0 <= pause <= most
    assert pause_after(1, most) == 0
    assert pause_after(records + 1, most) >= pause


@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
async def test_bodies_are_written_in_the_order_they_came_whoever_writes_them(tmp_path: Path, size: int) -> None:
    journal = opened(tmp_path / "log", size=size)
    answers: list[tuple[int, int]] = []
    done = asyncio.Event()

    def written(group: list[Item], bases: list[int]) -> None:
        answers.extend((append.sequence, base) for (_, append), base in zip(group, bases, strict=True))
        if len(answers) == 200:
            done.set()

    writer = Writer(journal, asyncio.get_running_loop(), written, 0.001)
    for sequence in range(1, 201):
        item = batch(sequence, (b"%d" % sequence, b"v" * 30_000))._replace(durable=sequence % 7 == 0)
        writer.put((lambda _, __: None, item))
        if sequence % 5 == 0:
            await asyncio.sleep(0)
        if sequence % 50 == 0:
            writer.put(journal.seal)
    await asyncio.wait_for(done.wait(), 10)
    await writer.stop()
    assert [sequence for sequence, _ in answers] == list(range(1, 201))
    assert [base for _, base in answers] == sorted(base for _, base in answers)
    journal.close()
    assert [record.key for record in everything(opened(tmp_path / "log"))] == [
        b"%d" % number for number in range(1, 201)
    ]


def test_what_was_refused_may_come_again_under_its_number(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.closed = frozenset({QUEUE})
    assert journal.write([batch(1, (b"a", b"1"))]) == [REFUSED]
    journal.closed = frozenset()
    assert journal.write([batch(1, (b"a", b"1"))])[0] >= form.FIRST_OFFSET


def test_positions_and_trims_outlive_the_segments_they_were_written_in(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1")), notes_append(Notes({"routers|5": 17}, {5: 9}))])
    for _ in range(3):
        journal.seal()
    oldest = journal.segments[:-1]
    journal.replace(oldest, [])
    journal.close()
    state = opened(tmp_path / "log").state
    assert (state.positions, state.trims) == ({"routers|5": 17}, {5: 9})
    assert state.ends[key_of(QUEUE, 0)] > 0


# --- compaction ------------------------------------------------------------------------------------------------------
def compacted(journal: Journal, now: int, tails: dict[int, int] | None = None) -> None:
    """One compaction of all sealed segments, as the housekeeper does it."""
    chosen = plan(journal, TOPICS, now, tails or {})
    if chosen is None:
        return
    new = []
    for name in compact(chosen):
        path = journal.directory / name
        segment = Segment(path, int(path.stem), path.suffix[1:], path.stat().st_size)
        segment.cover = cover_of(segment)
        segment.end = segment.cover.covers
        new.append(segment)
    old = [segment for segment in journal.segments[:-1] if segment.kind in ("raw", "keys")]
    journal.replace(old, new)


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(keys, st.none() | st.binary(max_size=4)), min_size=1, max_size=5)),
        st.tuples(st.just("seal"), st.none()),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 1000).map(lambda seconds: seconds * 1000)),
    ),
    max_size=40,
)  # fmt: skip


@given(steps)
@hypothesis_settings(max_examples=150, deadline=None)
def test_compaction_keeps_the_newest_of_each_key_and_every_offset(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, object]]
) -> None:
    directory, clock = tmp_path_factory.mktemp("log"), Clock()
    journal = opened(directory, clock)
    written: dict[int, tuple[bytes, bytes | None]] = {}
    for number, (step, argument) in enumerate(history, 1):
        if step == "write":
            records: list[tuple[bytes, bytes | None]] = argument  # type: ignore[assignment]
            (base,) = journal.write([batch(number, *records)])
            written |= {base + delta: record for delta, record in enumerate(records)}
        elif step == "seal":
            journal.seal()
        elif step == "compact":
            compacted(journal, clock.now)
        elif step == "reopen":
            journal.close()
            journal = opened(directory, clock)
        else:
            clock.now += argument  # type: ignore[operator]
    found = everything(journal)
    assert [record.offset for record in found] == sorted({record.offset for record in found})
    assert all(written[record.offset] == (record.key, record.value) for record in found)
    expected = {key: value for key, value in dict(written.values()).items() if value is not None}
    folded = {record.key: record.value for record in found}
    assert {key: value for key, value in folded.items() if value is not None} == expected
    journal.close()


def test_compaction_throws_away_what_is_old_and_only_that(tmp_path: Path) -> None:
    clock = Clock()
    journal = opened(tmp_path / "log", clock)
    journal.write([batch(1, (b"a", b"old"), (b"b", b"stays")), batch(2, (b"x", b"told"), topic=EVENTS)])
    journal.write([batch(3, (b"a", None))])
    journal.seal()
    compacted(journal, clock.now)
    assert [(record.key, record.value) for record in everything(journal)] == [(b"b", b"stays"), (b"a", None)]
    clock.now += DAY_MILLISECONDS
    journal.write([batch(4, (b"y", b"new"), topic=EVENTS)])
    journal.seal()
    compacted(journal, clock.now)
    assert [(record.key, record.value) for record in everything(journal)] == [(b"b", b"stays")]
    assert [record.value for record in everything(journal, EVENTS)][-1] == b"new"


def test_a_tombstone_stays_until_every_tail_has_passed_it(tmp_path: Path) -> None:
    clock = Clock()
    journal = opened(tmp_path / "log", clock)
    first, tombstone = journal.write([batch(1, (b"a", b"1")), batch(2, (b"a", None))])
    journal.seal()
    compacted(journal, clock.now + DAY_MILLISECONDS, {key_of(QUEUE, 0): first + 1})
    assert [record.offset for record in everything(journal)] == [tombstone]


def test_a_compaction_cut_off_before_its_end_loses_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1"), (b"a", b"2")), batch(2, (b"x", b"told"), topic=EVENTS)])
    journal.seal()
    chosen = plan(journal, TOPICS, 0, {})
    assert chosen is not None
    aged = tmp_path / "log" / compact(chosen)[1]
    aged.unlink()
    journal.close()
    recovered = opened(tmp_path / "log")
    assert [record.value for record in everything(recovered)][-1] == b"2"
    assert [record.value for record in everything(recovered, EVENTS)] == [b"told"]


def test_a_compaction_cut_off_before_it_removed_the_old_files_shows_nothing_twice(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1"), (b"b", b"2")), batch(2, (b"x", b"told"), topic=EVENTS)])
    journal.seal()
    chosen = plan(journal, TOPICS, 0, {})
    assert chosen is not None
    compact(chosen)
    journal.close()
    recovered = opened(tmp_path / "log")
    assert [record.value for record in everything(recovered)] == [b"1", b"2"]
    assert [record.value for record in everything(recovered, EVENTS)] == [b"told"]


def test_a_damaged_segment_is_never_compacted_away(tmp_path: Path) -> None:
    journal = opened(tmp_path / "log")
    journal.write([batch(1, (b"a", b"1"))])
    journal.write([batch(2, (b"b", b"2"))])
    sealed = journal.current.path
    middle = list(journal.current.scan())[-1].position
    journal.seal()
    content = bytearray(sealed.read_bytes())
    content[middle + 40] ^= 1
    sealed.write_bytes(content)
    chosen = plan(journal, TOPICS, 0, {})
    assert chosen is not None
    with pytest.raises(Damaged):
        compact(chosen)


# --- groups ----------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "release"]), st.integers(1, 4)), max_size=30))
def test_a_partition_never_has_two_holders(history: list[tuple[str, int]]) -> None:
    group = Group(5)
    told: dict[int, set[int]] = {}
    for step, member in history:
        if step == "enter" and member not in group.held:
            group.enter(member, ())
            told[member] = set()
        elif step == "leave":
            group.leave(member)
            told.pop(member, None)
        elif step == "release" and member in told:
            back = frozenset(group.leaving[member])
            told[member] -= back
            group.released(member, back)
        for receiver, partitions in group.moves()[0].items():
            told[receiver] |= partitions
        everyone = [partition for partitions in told.values() for partition in partitions]
        assert len(everyone) == len(set(everyone))
