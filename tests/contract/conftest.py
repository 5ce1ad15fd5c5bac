"""The logs that the contract of the bus is run on: memory, embedded, Kafka, each behind the same small `Lab`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from kafka import KafkaAdminClient

from mailfleet_core.bus import topics
from mailfleet_core.bus.memory import MemoryBus, MemoryLog
from mailfleet_core.bus.opening import open_bus
from mailfleet_core.bus.port import Bus
from mailfleet_core.settings import BusSettings
from support.kafka import KafkaBroker, kafka_broker
from support.member import ForeignMember, MemberProcess
from support.needs import leave_out

PARTITIONS = 4
LANES = 4


class Lab(Protocol):
    """A log, its clients and what may happen to them."""

    takeover_seconds: float
    """How long the partitions of a dead member may stay without a holder."""

    async def client(self, name: str = "client") -> Bus:
        """A started client."""

    async def member(self, group: str, topic: str, only: frozenset[int] | None = None, name: str = "") -> ForeignMember:
        """A member of a group that can be killed."""

    async def kill_broker(self) -> None:
        """The broker dies as by kill -9."""

    async def start_broker(self) -> None:
        """It is started again on what it had written."""


class MemoryMember:
    """A member in this process."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.assigned: frozenset[int] = frozenset()
        self.changed = asyncio.Event()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.assigned |= partitions
        self.changed.set()

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        self.assigned -= partitions
        self.changed.set()

    async def holds(self, count: int) -> frozenset[int]:
        while len(self.assigned) != count:
            self.changed.clear()
            await self.changed.wait()
        return self.assigned

    async def kill(self) -> None:
        self.bus.kill()

    def pause(self) -> None:
        """All members on this log are told at once."""

    def go_on(self) -> None:
        """See `pause`."""


class MemoryLab:
    """The log in memory."""

    takeover_seconds = 1.0

    def __init__(self) -> None:
        self.log = MemoryLog(PARTITIONS, LANES)
        self.clients: list[Bus] = []

    async def client(self, name: str = "client") -> Bus:
        bus = MemoryBus(self.log, name)
        await bus.start()
        self.clients.append(bus)
        return bus

    async def member(self, group: str, topic: str, only: frozenset[int] | None = None, name: str = "") -> ForeignMember:
        bus = MemoryBus(self.log, "member")
        await bus.start()
        member = MemoryMember(bus)
        await bus.join(group, topic, member.on_assigned, member.on_revoked, only, name)
        return member

    async def kill_broker(self) -> None:
        self.log.go_away()

    async def start_broker(self) -> None:
        self.log.come_back()

    async def close(self) -> None:
        for bus in self.clients:
            await bus.close()


class EmbeddedLab:
    """The embedded log; its "broker" is the process that has the files."""

    takeover_seconds = 10.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = AsyncExitStack()
        self.server: Any = None

    async def open(self) -> None:
        from support.embedded_bus import embedded_bus

        self.server = await self.stack.enter_async_context(
            embedded_bus(self.directory, queue_partitions=PARTITIONS, lanes=LANES)
        )

    async def client(self, name: str = "client") -> Bus:
        bus: Bus = await self.server(name)
        return bus

    async def member(self, group: str, topic: str, only: frozenset[int] | None = None, name: str = "") -> ForeignMember:
        settings = BusSettings(kind="embedded", directory=str(self.directory), queue_partitions=PARTITIONS, lanes=LANES)
        return await self.stack.enter_async_context(MemberProcess(settings, group, topic, only, name))

    async def kill_broker(self) -> None:
        await self.server.kill()

    async def start_broker(self) -> None:
        await self.server.restart()

    async def close(self) -> None:
        await self.stack.aclose()


class KafkaLab:
    """A real Kafka; tests keep apart by the prefix of their topics."""

    takeover_seconds = 30.0

    def __init__(self, broker: KafkaBroker, prefix: str) -> None:
        self.broker = broker
        self.settings = BusSettings(
            kind="kafka",
            bootstrap=broker.bootstrap,
            topic_prefix=prefix,
            queue_partitions=PARTITIONS,
            lanes=LANES,
        )
        self.stack = AsyncExitStack()

    async def client(self, name: str = "client") -> Bus:
        bus = open_bus(self.settings, name)
        await bus.start()
        self.stack.push_async_callback(bus.close)
        return bus

    async def member(self, group: str, topic: str, only: frozenset[int] | None = None, name: str = "") -> ForeignMember:
        return await self.stack.enter_async_context(MemberProcess(self.settings, group, topic, only, name))

    async def kill_broker(self) -> None:
        await asyncio.to_thread(self.broker.kill)

    async def start_broker(self) -> None:
        await asyncio.to_thread(self.broker.start)

    async def close(self) -> None:
        await self.stack.aclose()
        await asyncio.to_thread(self._forget_topics)

    def _forget_topics(self) -> None:
        """A broker with the topics of all tests would need half a minute to start again after a kill."""
        admin = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        admin.delete_topics([self.settings.topic_prefix + topic for topic in topics.topics(PARTITIONS, LANES, 0)])
        admin.close()


_prefixes = (f"t{number}." for number in itertools.count())


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests of the session."""
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture(params=["memory", "embedded", pytest.param("kafka", marks=[pytest.mark.real, pytest.mark.slow])])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """One of the three logs, empty."""
    if request.param == "memory":
        memory = MemoryLab()
        yield memory
        await memory.close()
    elif request.param == "embedded":
        embedded = EmbeddedLab(tmp_path / "log")
        try:
            await embedded.open()
        except ImportError as error:
            leave_out(f"the embedded log is not there: {error}")
        yield embedded
        await embedded.close()
    else:
        kafka = KafkaLab(request.getfixturevalue("broker"), next(_prefixes))
        if not kafka.broker.running:
            await kafka.start_broker()
        yield kafka
        await kafka.close()
