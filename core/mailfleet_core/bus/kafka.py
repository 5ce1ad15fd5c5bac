"""The log on a Kafka cluster.

What every mail needs, appends, tails and reads (`kafka_append`, `kafka_tails`, `kafka_reads`), goes over connections of
ours on our event loop (`kafka_connection`). What is asked rarely, metadata, groups and administration (`kafka_link`,
`kafka_group`, `kafka_topics`), is kafka-python's, on a thread of its own; it runs no callback of ours there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

from kafka.errors import KafkaError, PolicyViolationError, for_code
from kafka.protocol.admin import DeleteRecordsRequest

from mailfleet_core.bus import topics
from mailfleet_core.bus.kafka_append import BODIES, SMALL, Appender
from mailfleet_core.bus.kafka_group import KafkaMembership, Offsets
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.kafka_reads import Reads
from mailfleet_core.bus.kafka_tails import Tails
from mailfleet_core.bus.kafka_topics import Administration, check_partitions, refuse, weaknesses
from mailfleet_core.bus.port import DELIVERY_SECONDS, BusUnavailable, Membership, OnAssigned, OnRevoked, Record
from mailfleet_core.settings import BusSettings

log = logging.getLogger(__name__)

QUEUE_LIFE_SECONDS = 5 * topics.DAY
START_SECONDS = 20.0
ASK_SECONDS = 10.0
CLOSE_SECONDS = 10.0
PING_SECONDS = 1.0


class KafkaBus:
    """See `Bus`."""

    def __init__(self, settings: BusSettings, client: str, delivery_seconds: float = DELIVERY_SECONDS) -> None:
        self._settings = settings
        self._topics = topics.topics(settings.queue_partitions, settings.lanes, QUEUE_LIFE_SECONDS)
        self._link = Link(settings, client)
        self._bodies = Appender(self._link, BODIES, delivery_seconds)
        self._small = Appender(self._link, SMALL, delivery_seconds)
        self._partitions: dict[str, int] = {}
        self._memberships: list[KafkaMembership] = []
        self._tails: Tails
        self._reads: Reads
        self._offsets: Offsets
        self._watch: asyncio.Task[None] | None = None
        self._reachable = False

    async def start(self) -> None:
        """See `Bus.start`."""
        # A broker that is away would fill the log with a line for every attempt to connect; we say it once, below.
        for noisy in ("kafka.net", "kafka.cluster"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        await self._link.start()
        try:
            await asyncio.wait_for(self._prepare(), START_SECONDS)
        except (KafkaError, TimeoutError) as error:
            await self.close()
            raise BusUnavailable(f"Kafka at {self._settings.bootstrap} is there but not ready: {error!r}") from error
        except BaseException:
            await self.close()
            raise
        self._reachable = True
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def _prepare(self) -> None:
        prefix, bootstrap = self._settings.topic_prefix, self._settings.bootstrap
        found = await Administration(self._link, prefix).ensure(self._topics.values(), self._settings.replication)
        weak = []
        for name, topic in self._topics.items():
            check_partitions(topic, found[name], prefix + name)
            weak += weaknesses(topic, prefix + name, found[name], bootstrap)
            self._partitions[name] = found[name].partitions
        if weak and not self._settings.unsafe_durability:
            raise refuse(weak)
        for weakness in weak:
            log.warning("unsafe: %s", weakness.text)
        await self._link.know(prefix + name for name in self._topics)
        await asyncio.gather(self._bodies.start(), self._small.start())
        self._tails, self._reads, self._offsets = Tails(self._link), Reads(self._link), Offsets(self._link)

    async def close(self) -> None:
        """See `Bus.close`."""
        await asyncio.gather(*(member.leave() for member in self._memberships))
        await asyncio.gather(self._bodies.close(CLOSE_SECONDS), self._small.close(CLOSE_SECONDS))
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            await asyncio.gather(self._tails.close(), self._reads.close())
        self._reachable = False
        await self._link.close()

    def partitions(self, topic: str) -> int:
        """See `Bus.partitions`."""
        return self._partitions[topic]

    def place(self, topic: str, partition: int, key: bytes, value: bytes) -> asyncio.Future[int]:
        """See `Bus.place`; Kafka tells an offset only with its acknowledgement."""
        return self.append(topic, partition, key, value)

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, tag: bytes = b""
    ) -> asyncio.Future[int]:
        """See `Bus.append`."""
        appender = self._bodies if topic == topics.BODY else self._small
        return appender.append(self._name(topic), partition, key, value, tag)

    @property
    def in_flight_bytes(self) -> int:
        """See `Bus.in_flight_bytes`."""
        return self._bodies.in_flight_bytes + self._small.in_flight_bytes

    @property
    def healthy(self) -> bool:
        """See `Bus.healthy`."""
        return self._reachable and not self._bodies.late and not self._small.late

    async def tail(self, topic: str, partition: int, start: int) -> AsyncIterator[list[Record]]:
        """See `Bus.tail`."""
        tail = self._tails.open(self._name(topic), partition, start)
        try:
            while True:
                yield await self._tails.next(tail)
        finally:
            self._tails.shut(tail)

    async def read(self, topic: str, partition: int, offset: int, length: int) -> bytes:
        """See `Bus.read`."""
        return await self._reads.read(self._name(topic), partition, offset, length)

    def read_at_once(self, topic: str, partition: int, offset: int, length: int) -> bytes | None:
        """See `Bus.read_at_once`. Nothing is kept here, so everything has to be asked for."""
        return None

    async def end(self, topic: str, partition: int) -> int:
        """See `Bus.end`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ASK_SECONDS
        while True:
            try:
                return await self._link.offset(self._name(topic), partition, oldest=False)
            except KafkaError as error:
                if loop.time() > deadline:
                    raise BusUnavailable(f"Kafka does not say where {topic}[{partition}] ends: {error!r}") from error
            await asyncio.sleep(RETRY_SECONDS)

    async def join(
        self,
        group: str,
        topic: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        only: frozenset[int] | None = None,
        name: str = "",
    ) -> Membership:
        """See `Bus.join`."""
        told = (on_assigned, on_revoked)
        partitions = self._partitions[topic]
        member = KafkaMembership(self._link, self._name(group), self._name(topic), partitions, told, only, name)
        self._memberships.append(member)
        return member

    async def commit(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        """See `Bus.commit`."""
        await self._offsets.commit(self._name(group), self._name(topic), positions, self._member(group))

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """See `Bus.committed`."""
        return await self._offsets.committed(self._name(group), self._name(topic), partition)

    async def trim(self, topic: str, partition: int, before: int) -> None:
        """See `Bus.trim`; a compacted topic is Kafka's to clean, so nothing happens there."""
        name = self._name(topic)
        place = DeleteRecordsRequest.DeleteRecordsTopic(
            name=name,
            partitions=[
                DeleteRecordsRequest.DeleteRecordsTopic.DeleteRecordsPartition(partition_index=partition, offset=before)
            ],
        )
        try:
            response = await self._link.asks.call(
                DeleteRecordsRequest(topics=[place], timeout_ms=5000), self._link.leader(name, partition)
            )
            code = response.topics[0].partitions[0].error_code
            if for_code(code) is not PolicyViolationError:
                self._link.check(code)
        except KafkaError as error:
            raise BusUnavailable(f"Kafka does not trim {topic}[{partition}]: {error!r}") from error

    def _name(self, name: str) -> str:
        return self._settings.topic_prefix + name

    def _member(self, group: str) -> KafkaMembership | None:
        """Our membership of `group`, while it is one."""
        for member in reversed(self._memberships):
            if member.group == self._name(group) and member.member_id:
                return member
        return None

    async def _keep_watch(self) -> None:
        """Know within a second or so that the cluster is away, also when nothing is asked of it."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            try:
                await self._link.ping()
                reachable = True
            except KafkaError as error:
                reachable = False
                if self._reachable:
                    log.error("the log is away: %r", error)
            if reachable and not self._reachable:
                log.info("the log is back")
            self._reachable = reachable
