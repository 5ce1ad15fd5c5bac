"""Topics on a real Kafka: weaker ones are refused, and what we insist on survives a power cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from mailfleet_core.bus import topics
from mailfleet_core.bus.kafka import KafkaBus
from mailfleet_core.bus.kafka_topics import settings_of
from mailfleet_core.bus.port import BusUnavailable, UnsafeDurability
from mailfleet_core.bus.topics import BODY, QUEUE, RESULT
from mailfleet_core.settings import BusSettings, SettingsError
from support.kafka import KafkaBroker, kafka_broker
from support.needs import leave_out

pytestmark = [pytest.mark.real, pytest.mark.slow]

LIFE_SECONDS = 5 * topics.DAY


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


def settings(broker: KafkaBroker, prefix: str, **more: Any) -> BusSettings:
    return BusSettings(
        kind="kafka", bootstrap=broker.bootstrap, topic_prefix=prefix, queue_partitions=2, lanes=2, **more
    )


def make(broker: KafkaBroker, prefix: str, change: dict[str, dict[str, str | None]], partitions: int = 2) -> None:
    """Create the topics as Mailfleet would, but for `change`: topic → settings, None to leave one out."""
    created = {}
    for name, topic in topics.topics(partitions, 2, LIFE_SECONDS).items():
        chosen = {**settings_of(topic, 1), **change.get(name, {}), **change.get("*", {})}
        configs = {setting: value for setting, value in chosen.items() if value is not None}
        created[prefix + name] = {"num_partitions": topic.partitions, "replication_factor": 1, "configs": configs}
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    with contextlib.suppress(ValueError):  # kafka-python stumbles over the description of the settings it just made.
        admin.create_topics(created)
    admin.close()


async def refusal(chosen: BusSettings) -> str:
    bus = KafkaBus(chosen, "test")
    with pytest.raises((UnsafeDurability, SettingsError)) as refused:
        await bus.start()
    return str(refused.value)


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        (QUEUE, "flush.messages", None),
        (QUEUE, "cleanup.policy", "delete"),
        (BODY, "retention.ms", "86400000"),
        (BODY, "retention.bytes", "1000000000"),
        (BODY, "max.message.bytes", "500000"),
        (RESULT, "unclean.leader.election.enable", "true"),
    ],
)
async def test_a_weaker_topic_is_refused_with_the_command_that_mends_it(
    broker: KafkaBroker, topic: str, setting: str, value: str | None
) -> None:
    prefix = f"weak-{setting}."
    make(broker, prefix, {topic: {setting: value}})
    text = await refusal(settings(broker, prefix))
    assert f"{prefix}{topic}: {setting} is " in text
    assert f"--entity-name {prefix}{topic} --add-config {setting}=" in text
    assert text.count("kafka-configs") == 1, "only the weak one is named"


async def test_weaker_topics_are_used_by_those_who_say_that_they_may_lose_mail(broker: KafkaBroker) -> None:
    make(broker, "unsafe.", {"*": {"flush.messages": None}})
    bus = KafkaBus(settings(broker, "unsafe.", unsafe_durability=True), "test")
    await bus.start()
    assert await bus.append(QUEUE, 0, b"k", b"v") == 0
    await bus.close()


async def test_another_number_of_queue_partitions_is_refused(broker: KafkaBroker) -> None:
    make(broker, "three.", {}, partitions=3)
    text = await refusal(settings(broker, "three.", unsafe_durability=True))
    assert "three.mail.queue has 3 partitions" in text
    assert "set queue_partitions = 3" in text


async def test_topics_that_mailfleet_made_pass_its_own_check(broker: KafkaBroker) -> None:
    for _ in range(2):
        bus = KafkaBus(settings(broker, "own."), "test")
        await bus.start()
        await bus.close()


async def test_a_broker_that_is_not_there_is_told_within_ten_seconds() -> None:
    bus = KafkaBus(BusSettings(kind="kafka", bootstrap="127.0.0.1:1"), "test")
    with pytest.raises(BusUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        await asyncio.wait_for(bus.start(), 10)


# --- an outage longer than the patience of the producer ----------------------------------------------------------------
async def test_after_appends_failed_later_ones_are_written_in_order(tmp_path: Path) -> None:
    with kafka_broker(tmp_path) as broker:
        bus = KafkaBus(settings(broker, ""), "test", delivery_seconds=3.0)
        await bus.start()
        before = await bus.append(QUEUE, 0, b"k", b"before")
        broker.process.send_signal(signal.SIGSTOP)
        lost = [bus.append(QUEUE, 0, b"k", b"%d" % number) for number in range(20)]
        failures = await asyncio.wait_for(asyncio.gather(*lost, return_exceptions=True), 30)
        assert all(isinstance(failure, BusUnavailable) for failure in failures)
        assert bus.in_flight_bytes == 0
        broker.process.send_signal(signal.SIGCONT)
        offset = await written(bus, b"first after")
        offsets = await asyncio.gather(*[bus.append(QUEUE, 0, b"k", b"%d after" % number) for number in range(20)])
        assert before < offset < offsets[0]
        assert offsets == sorted(offsets)
        await the_given_up_are_nowhere_or_before(bus, offset, offsets[-1])
        await bus.close()


async def the_given_up_are_nowhere_or_before(bus: KafkaBus, first_after: int, last: int) -> None:
    """What the broker had in hand when it fell asleep may be written when it wakes, but in its place, and once."""
    there: dict[int, bytes | None] = {}
    async with asyncio.timeout(30), contextlib.aclosing(bus.tail(QUEUE, 0, 0)) as tail:
        async for batch in tail:
            there.update({record.offset: record.value for record in batch})
            if batch[-1].offset >= last:
                break
    given_up = {offset: value for offset, value in there.items() if value and value.isdigit()}
    assert all(offset < first_after for offset in given_up)
    assert list(given_up.values()) == [b"%d" % number for number in range(len(given_up))]


# --- connections that break ----------------------------------------------------------------------------------------------
class Breaking:
    """A way to the broker that drops every connection when it is told to, with what is on it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.ways: set[asyncio.StreamWriter] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self.ways |= {writer, far_writer}
            await asyncio.gather(self.copy(reader, far_writer), self.copy(far_reader, writer))

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.transport.abort()

    def drop_all(self) -> None:
        while self.ways:
            self.ways.pop().transport.abort()


async def test_connections_that_break_all_the_time_lose_and_double_nothing(tmp_path: Path) -> None:
    breaking = Breaking(0)
    server = await asyncio.start_server(breaking.accept, "127.0.0.1", 0)
    way = server.sockets[0].getsockname()[1]
    with kafka_broker(tmp_path, behind=way) as broker:
        breaking.target = broker.port
        bus = KafkaBus(settings(broker, ""), "test")
        await bus.start()
        futures: list[asyncio.Future[int]] = []
        for number in range(600):
            futures.append(bus.append(QUEUE, 0, b"k", b"%d" % number))
            futures.append(bus.append(BODY, number % 2, b"k", b"%d" % number * 2000))
            if number % 40 == 39:
                breaking.drop_all()
            await asyncio.sleep(0.005)
        offsets = await asyncio.wait_for(asyncio.gather(*futures), 60)
        assert offsets[::2] == list(range(600)), "each once, in the order of the calls"
        assert offsets[1::4] == offsets[3::4] == list(range(300))
        body = await asyncio.wait_for(bus.read(BODY, 1, 299, 6000), 30)
        assert body == b"599" * 2000
        await bus.close()
    server.close()


async def written(bus: KafkaBus, value: bytes) -> int:
    """Its offset; a caller that is told BusUnavailable tries again, as ingest's clients do."""
    for _ in range(10):
        with contextlib.suppress(BusUnavailable):
            return await bus.append(QUEUE, 0, b"k", value)
    raise AssertionError("Kafka takes nothing any more")


# --- a power cut -------------------------------------------------------------------------------------------------------
def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """The file system in `image`; what its kernel pages hold and `image` does not is what a power cut takes."""
    where = image.with_suffix(".mounted")
    where.mkdir()
    run("mount", "-o", "loop", str(image), str(where))
    try:
        yield where
    finally:
        run("umount", str(where))


def need_loop_mounts(directory: Path) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount"))):
        leave_out("needs root, mkfs.ext4 and mount: apt-get install e2fsprogs mount, run as root")
    try:
        probe = directory / "probe"
        with probe.open("wb") as file:
            file.truncate(8 << 20)
        run("mkfs.ext4", "-q", "-F", str(probe))
        with mounted(probe):
            pass
    except subprocess.CalledProcessError as error:
        leave_out(f"needs loop mounts: {error.stderr.decode(errors='replace')}")


async def load(bus: KafkaBus, acknowledged: dict[int, bytes], full: asyncio.Event) -> None:
    """Append one record after the other for each of 20 clients; write down what is acknowledged."""

    async def one(client: int) -> None:
        for number in range(10_000):
            value = b"%d-%d" % (client, number) + bytes(1000)
            acknowledged[await bus.append(QUEUE, 0, b"%d" % client, value)] = value
            if len(acknowledged) >= 500:
                full.set()

    await asyncio.gather(*[one(client) for client in range(20)])


async def lost_of(bus: KafkaBus, acknowledged: dict[int, bytes]) -> int:
    """How many acknowledged records are not there."""
    end = await bus.end(QUEUE, 0)
    there: dict[int, bytes | None] = {}
    if end:
        async for batch in bus.tail(QUEUE, 0, 0):
            there.update({record.offset: record.value for record in batch})
            if batch[-1].offset >= end - 1:
                break
    return sum(there.get(offset) != value for offset, value in acknowledged.items())


async def test_a_power_cut_takes_nothing_acknowledged_with_our_settings_and_much_without_them(tmp_path: Path) -> None:
    need_loop_mounts(tmp_path)
    disk, cut = tmp_path / "disk", tmp_path / "cut"
    with disk.open("wb") as file:
        file.truncate(1 << 30)
    run("mkfs.ext4", "-q", "-F", str(disk))
    acknowledged: dict[str, dict[int, bytes]] = {"safe.": {}, "unsafe.": {}}
    with mounted(disk) as where, kafka_broker(tmp_path / "before", where / "data") as broker:
        make(broker, "unsafe.", {"*": {"flush.messages": None}})
        buses = {
            name: KafkaBus(settings(broker, name, unsafe_durability=name == "unsafe."), name) for name in acknowledged
        }
        full = {name: asyncio.Event() for name in acknowledged}
        for bus in buses.values():
            await bus.start()
        run(
            "sync", "-f", str(where)
        )  # Brokers and topics were made long before the cut; Kafka's format tool syncs nothing.
        loads = [asyncio.ensure_future(load(bus, acknowledged[name], full[name])) for name, bus in buses.items()]
        await asyncio.wait_for(asyncio.gather(*[event.wait() for event in full.values()]), 30)
        broker.process.send_signal(signal.SIGSTOP)
        run("cp", "--sparse=always", str(disk), str(cut))
        for task in loads:
            task.cancel()
        broker.kill()
        await asyncio.gather(*(bus.close() for bus in buses.values()))
    with mounted(cut) as where, kafka_broker(tmp_path / "after", where / "data") as broker:
        lost = {}
        for name, records in acknowledged.items():
            bus = KafkaBus(settings(broker, name, unsafe_durability=True), name)
            await bus.start()
            lost[name] = await asyncio.wait_for(lost_of(bus, records), 30)
            await bus.close()
    assert lost["safe."] == 0
    assert lost["unsafe."] > 0, "the check cannot tell safe from unsafe"
