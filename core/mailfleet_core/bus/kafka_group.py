"""Membership of a consumer group, spoken by ourselves: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

Why not KafkaConsumer: a member of kafka-python 3.0.12 may hang for ever after a join (9 of 25 in a test), and its
listeners run on its event loop, where waiting for a flush would stop the heartbeats. Here heartbeats go on while
`on_revoked` is awaited, for as long as it takes; a partition goes to another member only in the round after its holder
let go (incremental co-operative rebalancing). Members describe themselves as consumers do, so Kafka's tools show them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Any

from kafka import errors
from kafka.errors import KafkaError, for_code
from kafka.protocol.consumer import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import FindCoordinatorRequest

from mailfleet_core.bus.kafka_link import RETRY_SECONDS, Link
from mailfleet_core.bus.port import BusUnavailable, OnAssigned, OnRevoked
from mailfleet_core.bus.sharing import shares

log = logging.getLogger(__name__)

SESSION_MS = 10_000
REBALANCE_MS = 20_000
HEARTBEAT_SECONDS = 1.0
MARGIN_SECONDS = 1.0
"""What a holder does in its last instant of being sure takes some time to be seen."""
LETTING_GO_SECONDS = 30.0
OFFSETS_SECONDS = 10.0
PROTOCOL = "mailfleet-cooperative"
SUBSCRIPTION_VERSION = 2

_EXPELLED = (errors.UnknownMemberIdError, errors.IllegalGenerationError, errors.FencedInstanceIdError)


class Coordinator:
    """The broker that keeps a group and its offsets."""

    def __init__(self, link: Link, group: str) -> None:
        self._link = link
        self.group = group
        self._node: int | None = None

    async def node(self) -> int:
        """Its number. Raises KafkaError."""
        if self._node is None:
            request = FindCoordinatorRequest(key=self.group, key_type=0, max_version=3)
            response = await self._link.asks.call(request)
            self.check(response.error_code)
            self._node = int(response.node_id)
        return self._node

    def check(self, code: int) -> None:
        """Raise the KafkaError that a response names."""
        if code:
            error = for_code(code)()
            self.failed(error)
            raise error

    def failed(self, error: KafkaError) -> None:
        """After what is no answer of this group's coordinator, look for it again."""
        if not isinstance(error, (*_EXPELLED, errors.RebalanceInProgressError, errors.MemberIdRequiredError)):
            self._node = None


class KafkaMembership:
    """This process as a member of a group on one topic."""

    def __init__(
        self, link: Link, group: str, topic: str, partitions: int, told: tuple[OnAssigned, OnRevoked],
        only: frozenset[int] | None, name: str,
    ) -> None:  # fmt: skip
        self.group = group
        self.topic = topic
        self.member_id = ""
        self.generation = -1
        self._link = link
        self._channel = link.channel()
        self._coordinator = Coordinator(link, group)
        self._partitions = partitions
        self._on_assigned, self._on_revoked = told
        self._only = only
        self._name = name or None
        """Static membership (KIP-345): whoever joins under this name takes the place of whoever had it."""
        self._settled = not name
        self._heard_at = -math.inf
        """When that was sent which the group has answered last."""
        self._held: frozenset[int] = frozenset()
        self._letting_go: frozenset[int] = frozenset()
        self._target: frozenset[int] = frozenset()
        self._rejoin = asyncio.Event()
        self._leaving = False
        self._left = False
        self._released: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._live())

    @property
    def assigned(self) -> frozenset[int]:
        """See `Membership.assigned`."""
        return self._held

    @property
    def sure_until(self) -> float:
        """See `Membership.sure_until`: the group takes a member for dead so long after it last heard from it."""
        return self._heard_at + SESSION_MS / 1000 - MARGIN_SECONDS

    @property
    def instance(self) -> str | None:
        """The name under which it is a static member."""
        return self._name

    async def leave(self) -> None:
        """See `Membership.leave`."""
        if self._left:
            return
        self._leaving = True
        self._reconcile()
        while self._released:
            await asyncio.wait(self._released)
        self._left = True
        self._task.cancel()
        await asyncio.wait([self._task])
        try:
            await self._say_goodbye()
        except KafkaError as error:
            log.info("left group %s without a goodbye: %r", self.group, error)
        self._channel.drop()

    # --- the rounds of the group -----------------------------------------------------------------------------------
    async def _live(self) -> None:
        while True:
            try:
                await self._round()
                await self._beat()
            except _EXPELLED as error:
                self._expelled(error)
            except errors.RebalanceInProgressError:
                continue
            except KafkaError as error:
                self._coordinator.failed(error)
                log.debug("group %s: %r", self.group, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _round(self) -> None:
        """Join, let the leader share out, take what is ours."""
        self._rejoin.clear()
        joined = await self._join()
        assignments = self._share_out(joined) if joined.leader == joined.member_id else []
        request = SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.member_id,
            group_instance_id=self._name,
            protocol_type="consumer",
            protocol_name=PROTOCOL,
            assignments=assignments,
        )
        sent_at = asyncio.get_running_loop().time()
        synced = await self._call(request)
        self._coordinator.check(synced.error_code)
        self._heard_at = sent_at
        self._target = self._of_topic(ConsumerProtocolAssignment.decode(bytes(synced.assignment)).assigned_partitions)
        self._reconcile()
        if not self._settled:
            # The share of the one before, who may have died while it let go of something: have it shared out anew.
            self._settled = True
            self._rejoin.set()

    async def _join(self) -> Any:
        subscription = ConsumerProtocolSubscription(
            topics=[self.topic],
            user_data=_as_user_data(self._only),
            owned_partitions=[
                ConsumerProtocolSubscription.TopicPartition(topic=self.topic, partitions=sorted(self._held))
            ],
            generation_id=self.generation,
            version=SUBSCRIPTION_VERSION,
        )
        protocol = JoinGroupRequest.JoinGroupRequestProtocol(name=PROTOCOL, metadata=subscription.encode())
        request = JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            member_id=self.member_id,
            group_instance_id=self._name,
            protocol_type="consumer",
            protocols=[protocol],
            reason=None,
        )
        response = await self._call(request, REBALANCE_MS + 5000)
        if for_code(response.error_code) is errors.MemberIdRequiredError:
            self.member_id = response.member_id
            return await self._join()
        self._coordinator.check(response.error_code)
        self.member_id, self.generation = response.member_id, response.generation_id
        return response

    def _share_out(self, joined: Any) -> list[Any]:
        """As leader: even shares of what each takes, but nothing that another member still holds."""
        held = self._held_by_members(joined.members)
        agreed = shares(held, self._partitions, _only_of(joined.members))
        assignments = []
        for member, share in agreed.items():
            others = frozenset[int]().union(*(theirs for other, theirs in held.items() if other != member))
            place = ConsumerProtocolAssignment.TopicPartition(topic=self.topic, partitions=sorted(share - others))
            assignment = ConsumerProtocolAssignment(assigned_partitions=[place], user_data=None, version=0)
            assignments.append(
                SyncGroupRequest.SyncGroupRequestAssignment(member_id=member, assignment=assignment.encode())
            )
        return assignments

    def _held_by_members(self, members: list[Any]) -> dict[str, frozenset[int]]:
        """What members say they hold; if two say it of one partition, the one who heard of the group last is right."""
        said = [(member.member_id, ConsumerProtocolSubscription.decode(bytes(member.metadata))) for member in members]
        said.sort(key=lambda pair: (-pair[1].generation_id, pair[0]))
        taken: frozenset[int] = frozenset()
        held: dict[str, frozenset[int]] = {}
        for member, subscription in said:
            held[member] = self._of_topic(subscription.owned_partitions) - taken
            taken |= held[member]
        return held

    def _of_topic(self, places: Any) -> frozenset[int]:
        return frozenset(number for place in places if place.topic == self.topic for number in place.partitions)

    async def _beat(self) -> None:
        """Heartbeats until there is a reason for another round."""
        while not self._rejoin.is_set():
            request = HeartbeatRequest(
                group_id=self.group,
                generation_id=self.generation,
                member_id=self.member_id,
                group_instance_id=self._name,
            )
            sent_at = asyncio.get_running_loop().time()
            answer = await self._call(request)
            self._coordinator.check(answer.error_code)
            self._heard_at = sent_at
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._rejoin.wait()

    def _expelled(self, error: KafkaError) -> None:
        """The group took us for dead: others may hold what we had, so let go of it and begin anew."""
        log.warning("group %s took this member for dead (%s); joining anew", self.group, type(error).__name__)
        if isinstance(error, errors.FencedInstanceIdError):
            log.error("another process is %s in group %s: give each a name of its own", self._name, self.group)
            self._name = None
        self.member_id, self.generation = "", -1
        self._target = frozenset()
        self._reconcile()

    async def _call(self, request: Any, wait_ms: int = SESSION_MS) -> Any:
        return await self._channel.call(request, await self._coordinator.node(), wait_ms=wait_ms)

    async def _say_goodbye(self) -> None:
        if self.member_id:
            member = LeaveGroupRequest.MemberIdentity(
                member_id=self.member_id, group_instance_id=self._name, reason=None
            )
            request = LeaveGroupRequest(group_id=self.group, member_id=self.member_id, members=[member], min_version=3)
            await self._link.asks.call(request, await self._coordinator.node(), wait_ms=3000)

    # --- what is ours ----------------------------------------------------------------------------------------------
    def _reconcile(self) -> None:
        """Tell the owner of this membership what changed between what it holds and what it should hold."""
        target = frozenset[int]() if self._leaving else self._target
        surplus = self._held - target - self._letting_go
        if surplus:
            self._letting_go |= surplus
            task = asyncio.get_running_loop().create_task(self._let_go(surplus))
            self._released.add(task)
            task.add_done_callback(self._released.discard)
        if missing := target - self._held:
            self._held |= missing
            try:
                self._on_assigned(missing)
            except Exception:
                log.exception("on_assigned failed")

    async def _let_go(self, partitions: frozenset[int]) -> None:
        try:
            async with asyncio.timeout(LETTING_GO_SECONDS):
                await self._on_revoked(partitions)
        except Exception:
            log.exception("on_revoked failed; the partitions go to another member all the same")
        self._held -= partitions
        self._letting_go -= partitions
        self._rejoin.set()
        self._reconcile()


def _as_user_data(only: frozenset[int] | None) -> bytes | None:
    """What the leader is told of the partitions that a member takes: numbers and commas; nothing, if it takes all."""
    return None if only is None else ",".join(map(str, sorted(only))).encode()


def _only_of(members: list[Any]) -> dict[str, frozenset[int]]:
    """By member id, for those that do not take all."""
    said = {
        member.member_id: ConsumerProtocolSubscription.decode(bytes(member.metadata)).user_data for member in members
    }
    return {
        member: frozenset(int(number) for number in bytes(numbers).split(b",") if number)
        for member, numbers in said.items()
        if numbers is not None
    }


class Offsets:
    """Positions of groups, kept by their coordinators."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._coordinators: dict[str, Coordinator] = {}

    async def commit(
        self, group: str, topic: str, positions: Mapping[int, int], member: KafkaMembership | None
    ) -> None:
        """See `Bus.commit`; a member commits in its own name, for others may not while a group has members."""
        topics = [_committed(topic, positions)]

        async def attempt(coordinator: Coordinator) -> None:
            request = OffsetCommitRequest(
                group_id=group,
                generation_id_or_member_epoch=member.generation if member else -1,
                member_id=member.member_id if member else "",
                group_instance_id=member.instance if member else None,
                retention_time_ms=-1,
                topics=topics,
                max_version=8,
            )
            response = await self._link.asks.call(request, await coordinator.node())
            for answer in response.topics[0].partitions:
                coordinator.check(answer.error_code)

        await self._persist(group, attempt)

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """See `Bus.committed`."""
        places = [OffsetFetchRequest.OffsetFetchRequestTopic(name=topic, partition_indexes=[partition])]
        found = 0

        async def attempt(coordinator: Coordinator) -> None:
            nonlocal found
            request = OffsetFetchRequest(group_id=group, topics=places, require_stable=True, max_version=7)
            response = await self._link.asks.call(request, await coordinator.node())
            coordinator.check(response.error_code)
            answer = response.topics[0].partitions[0]
            coordinator.check(answer.error_code)
            found = max(0, answer.committed_offset)

        await self._persist(group, attempt)
        return found

    async def _persist(self, group: str, attempt: Any) -> None:
        """Try until it works or `OFFSETS_SECONDS` are over: brokers move, rounds of the group go on."""
        coordinator = self._coordinators.setdefault(group, Coordinator(self._link, group))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + OFFSETS_SECONDS
        while True:
            try:
                await attempt(coordinator)
                return
            except KafkaError as error:
                coordinator.failed(error)
                if loop.time() > deadline:
                    raise BusUnavailable(
                        f"Kafka did not keep or give a position of group {group}: {error!r}"
                    ) from error
                await asyncio.sleep(RETRY_SECONDS)


def _committed(topic: str, positions: Mapping[int, int]) -> Any:
    partitions = [
        OffsetCommitRequest.OffsetCommitRequestTopic.OffsetCommitRequestPartition(
            partition_index=partition, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
        )
        for partition, offset in positions.items()
    ]
    return OffsetCommitRequest.OffsetCommitRequestTopic(name=topic, partitions=partitions)
