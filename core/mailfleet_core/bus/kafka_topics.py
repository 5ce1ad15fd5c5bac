"""The topics on a Kafka cluster: made as Mailfleet needs them, or checked when they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import errors
from kafka.errors import KafkaError, for_code
from kafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from kafka.protocol.metadata import MetadataRequest

from mailfleet_core.bus import topics
from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.port import UnsafeDurability
from mailfleet_core.bus.topics import Topic
from mailfleet_core.settings import SettingsError

SAFE_REPLICAS = 3
SAFE_IN_SYNC = 2
TOPIC_RESOURCE = 2
MAX_MESSAGE_BYTES = 1_100_000
COMPACTION = {
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": "600000",
    "segment.bytes": str(64 << 20),
    "max.compaction.lag.ms": "1800000",
    "delete.retention.ms": "86400000",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is on the cluster."""

    partitions: int
    replicas: int
    """Of the partition that has fewest."""
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Weakness:
    """A setting that may lose acknowledged mail."""

    text: str
    remedy: str


def settings_of(topic: Topic, replicas: int) -> dict[str, str]:
    """The settings to create `topic` with."""
    replicated = replicas >= SAFE_REPLICAS
    chosen = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "min.insync.replicas": str(SAFE_IN_SYNC if replicated else 1),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if topic.durable and not replicated:
        # Kafka itself never waits for the disk: with fewer than three replicas a power cut may take acknowledged mail.
        chosen["flush.messages"] = "1"
        # An entry of the index is two more files to sync; without it Kafka looks through more batches for an offset.
        chosen["index.interval.bytes"] = str((256 if topic.name == topics.BODY else 64) << 10)
    if topic.compacted:
        chosen |= COMPACTION
    else:
        chosen["retention.ms"] = str(topic.retention_seconds * 1000)
        chosen["segment.bytes"] = str((512 if topic.name == topics.BODY else 64) << 20)
    return chosen


def weaknesses(topic: Topic, name: str, found: Found, bootstrap: str) -> list[Weakness]:
    """What is weaker on the topic `name` than what a 250 promises."""
    found_settings = found.settings
    weak: list[Weakness] = []

    def want(setting: str, value: str, why: str) -> None:
        now = found_settings.get(setting, "unknown")
        command = (
            f"kafka-configs --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {name} "
            f"--add-config {setting}={value}"
        )
        weak.append(Weakness(f"{name}: {setting} is {now}, and {why}", command))

    if topic.durable:
        _want_replication(found, want)
    policy = "compact" if topic.compacted else "delete"
    if found_settings.get("cleanup.policy") != policy:
        want(
            "cleanup.policy", policy, "it would drop what is still needed" if topic.compacted else "it would never end"
        )
    if not topic.compacted:
        _want_retention(topic, found_settings, want)
    if int(found_settings.get("max.message.bytes", 0)) < topics.MAX_CHUNK_BYTES + 50_000:
        want("max.message.bytes", str(MAX_MESSAGE_BYTES), "a chunk of a body would be refused")
    return weak


def _want_replication(found: Found, want: Any) -> None:
    if found.replicas >= SAFE_REPLICAS and int(found.settings.get("min.insync.replicas", 0)) < SAFE_IN_SYNC:
        want("min.insync.replicas", str(SAFE_IN_SYNC), "one broker alone may acknowledge mail and then be lost")
    if found.replicas < SAFE_REPLICAS and found.settings.get("flush.messages") != "1":
        want(
            "flush.messages",
            "1",
            f"with {found.replicas} replica(s) a power cut loses what Kafka acknowledged and had not written to disk "
            f"(or give it {SAFE_REPLICAS} replicas and min.insync.replicas={SAFE_IN_SYNC})",
        )
    if found.settings.get("unclean.leader.election.enable") != "false":
        want("unclean.leader.election.enable", "false", "a broker that missed acknowledged mail may become leader")


def _want_retention(topic: Topic, found: Mapping[str, str], want: Any) -> None:
    needed = topic.retention_seconds * 1000
    if 0 <= int(found.get("retention.ms", 0)) < needed:
        want("retention.ms", str(needed), f"mail may wait for {topic.retention_seconds / topics.DAY:g} days")
    if topic.durable and int(found.get("retention.bytes", -1)) >= 0:
        want("retention.bytes", "-1", "a full topic would drop mail that is still queued")


def refuse(weak: Iterable[Weakness]) -> UnsafeDurability:
    """The error that says what is weak and what to do."""
    listed = list(weak)
    texts = "\n".join(f"  - {weakness.text}" for weakness in listed)
    remedies = "\n".join(f"  {weakness.remedy}" for weakness in listed)
    return UnsafeDurability(
        f"the topics promise less than an accepted mail needs:\n{texts}\nSet:\n{remedies}\n"
        "or start with [bus] unsafe_durability = true and be able to lose acknowledged mail"
    )


class Administration:
    """Creates and describes topics."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def ensure(self, wanted: Iterable[Topic], replication: int) -> dict[str, Found]:
        """All topics by name, made where they were missing. Raises KafkaError."""
        names = {self._prefix + topic.name: topic for topic in wanted}
        brokers, sizes = await self._sizes(names)
        missing = {name: topic for name, topic in names.items() if name not in sizes}
        if missing:
            await self._create(missing, replication or min(SAFE_REPLICAS, brokers))
        while len(sizes) < len(names):
            await asyncio.sleep(RETRY_SECONDS)
            _, sizes = await self._sizes(names)
        settings = await self._settings(names)
        return {topic.name: Found(*sizes[name], settings[name]) for name, topic in names.items()}

    async def _sizes(self, names: Iterable[str]) -> tuple[int, dict[str, tuple[int, int]]]:
        """How many brokers there are; partitions and fewest replicas of the topics that are there and have leaders."""
        asked = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
        request = MetadataRequest(topics=asked, allow_auto_topic_creation=False, max_version=9)
        response = await self._link.asks.call(request)
        sizes = {}
        for topic in response.topics:
            if for_code(topic.error_code) in (errors.UnknownTopicOrPartitionError, errors.LeaderNotAvailableError):
                continue
            self._link.check(topic.error_code)
            if topic.partitions and all(partition.leader_id >= 0 for partition in topic.partitions):
                replicas = min(len(partition.replica_nodes) for partition in topic.partitions)
                sizes[topic.name] = (len(topic.partitions), replicas)
        return len(response.brokers), sizes

    async def _create(self, missing: Mapping[str, Topic], replicas: int) -> None:
        created = [
            CreateTopicsRequest.CreatableTopic(
                name=name,
                num_partitions=topic.partitions,
                replication_factor=replicas,
                assignments=[],
                configs=[
                    CreateTopicsRequest.CreatableTopic.CreatableTopicConfig(name=setting, value=value)
                    for setting, value in settings_of(topic, replicas).items()
                ],
            )
            for name, topic in missing.items()
        ]
        request = CreateTopicsRequest(topics=created, timeout_ms=8000, validate_only=False)
        response = await self._link.asks.call(request)
        for topic in response.topics:
            if topic.error_code and for_code(topic.error_code) is not errors.TopicAlreadyExistsError:
                raise KafkaError(f"cannot create {topic.name}: {topic.error_message or for_code(topic.error_code)}")

    async def _settings(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [
            DescribeConfigsRequest.DescribeConfigsResource(
                resource_type=TOPIC_RESOURCE, resource_name=name, configuration_keys=None
            )
            for name in names
        ]
        request = DescribeConfigsRequest(resources=resources, include_synonyms=False, include_documentation=False)
        while True:
            response = await self._link.asks.call(request)
            codes = {for_code(result.error_code) for result in response.results if result.error_code}
            if errors.UnknownTopicOrPartitionError not in codes:
                break
            await asyncio.sleep(RETRY_SECONDS)
        for result in response.results:
            self._link.check(result.error_code)
        return {result.resource_name: {item.name: item.value for item in result.configs} for result in response.results}


def check_partitions(topic: Topic, found: Found, name: str) -> None:
    """Raise SettingsError when the number of partitions does not fit the settings."""
    fixed = topic.name in (topics.QUEUE, topics.RESULT)
    if fixed and found.partitions != topic.partitions:
        raise SettingsError(
            f"{name} has {found.partitions} partitions, [bus] queue_partitions is {topic.partitions}: a site's partition "
            f"follows from that number, which is fixed for life; set queue_partitions = {found.partitions}"
        )
    if topic.name == topics.DISPATCH and found.partitions < topic.partitions:
        raise SettingsError(
            f"{name} has {found.partitions} partitions, [bus] lanes is {topic.partitions}: "
            f"kafka-topics --alter --topic {name} --partitions {topic.partitions}, or lanes = {found.partitions}"
        )
