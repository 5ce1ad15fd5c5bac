"""kafka-python's connections, awaited from our event loop.

kafka-python 3 has an event loop of its own on a thread. A `Channel` is one connection to each broker; the broker
answers the requests of one connection one after the other, so whatever may wait there (a long poll, a rebalance)
has a channel to itself. TLS, SASL, metadata and reconnecting are kafka-python's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, for_code
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import ListOffsetsRequest
from kafka.protocol.metadata import MetadataRequest

from mailfleet_core.bus.kafka_connection import security
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.settings import BusSettings

START_SECONDS = 8
REQUEST_MS = 10_000
RETRY_SECONDS = 0.1
OLDEST, LATEST = -2, -1
"""Timestamps that ListOffsets takes for names."""


def options(settings: BusSettings, client: str) -> dict[str, Any]:
    """What every client of kafka-python is given."""
    chosen: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap.split(",")],
        "client_id": client,
        "security_protocol": settings.security,
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1000,
        "request_timeout_ms": REQUEST_MS,
    }
    if settings.ca_file:
        chosen["ssl_cafile"] = settings.ca_file
    if settings.security.startswith("SASL"):
        chosen["sasl_mechanism"] = settings.sasl_mechanism
        chosen["sasl_plain_username"] = settings.username
        chosen["sasl_plain_password"] = Path(settings.password_file).read_text().strip()
    return chosen


class Channel:
    """One connection to each broker."""

    def __init__(self, manager: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._manager = manager
        self._loop = loop

    async def call(
        self,
        request: Any,
        node: int | None = None,
        parse: Callable[[Any], Any] | None = None,
        wait_ms: int = REQUEST_MS,
    ) -> Any:
        """The response, or what `parse` makes of it on kafka-python's thread. Raises KafkaError."""

        async def ask() -> Any:
            response = await self._manager.send(request, node_id=node, request_timeout_ms=wait_ms)
            return parse(response) if parse is not None else response

        return await self.follow(self._manager.call_soon(ask))

    async def follow(self, future: Any) -> Any:
        """What comes of a future of kafka-python. Raises KafkaError."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        future.add_callback(partial(self._tell, answer, False))
        future.add_errback(partial(self._tell, answer, True))
        return await answer

    def drop(self) -> None:
        """Close its connections."""
        self._manager.call_soon(self._drop)

    async def _drop(self) -> None:
        for node in list(self._manager._conns):
            self._manager.close(node_id=node)

    def _tell(self, answer: asyncio.Future[Any], failed: bool, outcome: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, answer, failed, outcome)

    @staticmethod
    def _settle(answer: asyncio.Future[Any], failed: bool, outcome: Any) -> None:
        if answer.done():
            return
        if failed:
            answer.set_exception(outcome if isinstance(outcome, KafkaError) else KafkaError(repr(outcome)))
        else:
            answer.set_result(outcome)


class Link:
    """The cluster: its brokers, who leads which partition, and channels to them."""

    def __init__(self, settings: BusSettings, client: str) -> None:
        self.options = options(settings, client)
        self.client = client
        self.security = security(self.options)
        self._bootstrap = settings.bootstrap
        self._settings = {"max_in_flight_requests_per_connection": 1000, "receive_message_max_bytes": 128 << 20}
        self._net: Any = None
        self._primary: Any = None
        self._loop: asyncio.AbstractEventLoop
        self.asks: Channel
        """For short questions; nothing that waits on the broker goes here."""

    async def start(self) -> None:
        """Find the cluster. Raises BusUnavailable."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._connect)
        except (KafkaError, RuntimeError, OSError) as error:
            await self.close()
            raise BusUnavailable(
                f"no Kafka broker answers at {self._bootstrap} ({error}); is it running, and do `bootstrap`, "
                "`security` and the credentials in [bus] fit it?"
            ) from error
        self.asks = self.channel()

    def channel(self) -> Channel:
        """A new channel."""
        manager = self._manager()
        manager.cluster = self._primary.cluster
        manager.broker_version_data = self._primary.broker_version_data
        return Channel(manager, self._loop)

    async def know(self, topics: Iterable[str]) -> None:
        """Learn who leads the partitions of `topics` (all that will be used). Raises KafkaError."""
        wanted = list(topics)
        await self._update(lambda: self._primary.cluster.set_topics(wanted))
        while not all(self.partitions(topic) for topic in wanted):
            await asyncio.sleep(RETRY_SECONDS)
            await self._update(self._primary.cluster.request_update)

    def partitions(self, topic: str) -> int:
        """How many partitions it has; 0 when it is not known."""
        return len(self._primary.cluster.partitions_for_topic(topic) or ())

    def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition. Raises KafkaError when there is none now."""
        node = self._primary.cluster.leader_for_partition(TopicPartition(topic, partition))
        if node is None or node < 0:
            self.stale()
            raise KafkaError(f"{topic}[{partition}] has no leader now")
        return int(node)

    def address(self, node: int) -> tuple[str, int]:
        """Where a broker is. Raises KafkaError when it is not known."""
        broker = self._primary.cluster.broker_metadata(node)
        if broker is None:
            self.stale()
            raise KafkaError(f"broker {node} is not known")
        return str(broker.host), int(broker.port)

    def stale(self) -> None:
        """A broker said that it does not lead what we thought it does."""
        self._primary.cluster.request_update()

    async def offset(self, topic: str, partition: int, oldest: bool) -> int:
        """The oldest offset kept, or the one after the last record. Raises KafkaError."""
        asked = ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(
            partition_index=partition, current_leader_epoch=-1, timestamp=OLDEST if oldest else LATEST
        )
        topics = [ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[asked])]
        request = ListOffsetsRequest(replica_id=-1, isolation_level=0, topics=topics, max_version=7)
        response = await self.asks.call(request, self.leader(topic, partition))
        answer = response.topics[0].partitions[0]
        self.check(answer.error_code)
        return int(answer.offset)

    def check(self, code: int) -> None:
        """Raise the KafkaError that a response names; where it says that a leader moved, look for it."""
        if code:
            error = for_code(code)
            if error.invalid_metadata:
                self.stale()
            raise error()

    async def ping(self) -> None:
        """Ask any broker anything. Raises KafkaError."""
        await self.asks.call(MetadataRequest(topics=[], allow_auto_topic_creation=False), wait_ms=3000)

    async def close(self) -> None:
        """Close all channels."""
        if self._net is not None:
            await asyncio.to_thread(self._net.close)

    async def _update(self, ask: Callable[[], Any]) -> None:
        await self.asks.follow(self._primary.call_soon(ask))

    def _manager(self) -> Any:
        return KafkaConnectionManager(self._net, **{**self.options, **self._settings})

    def _connect(self) -> None:
        self._net = NetworkSelector(client_id=self.options["client_id"], slow_task_threshold_secs=0)
        self._net.start()
        self._primary = self._manager()
        self._primary.bootstrap(START_SECONDS * 1000)
