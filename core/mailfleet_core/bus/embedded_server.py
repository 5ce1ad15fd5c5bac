"""The log process: one owner of the files, clients by Unix socket, work per batch and not per record."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from mailfleet_core.bus import embedded_wire as wire
from mailfleet_core.bus.embedded_feed import Feed
from mailfleet_core.bus.embedded_format import HEAD
from mailfleet_core.bus.embedded_groups import Group
from mailfleet_core.bus.embedded_housekeeping import Housekeeper, Policy
from mailfleet_core.bus.embedded_journal import REFUSED, WRITTEN_BEFORE, Journal
from mailfleet_core.bus.embedded_segment import sync_directory
from mailfleet_core.bus.embedded_session import Session
from mailfleet_core.bus.embedded_writer import Item, Writer

log = logging.getLogger(__name__)

JOURNALS = ("state", "bodies")
META = "topics.json"
ALONE = "alone"
"""A file that says: at the last stop there were no members."""
GATHER_SECONDS = 3.0
"""After a crash of ours members come back one after the other; a lane that went to the first would be taken from a sender
that has mail of it under way, and that mail be delivered twice."""
ROOM_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 600.0


class CannotServe(Exception):
    """The directory cannot be used; the text says why and what to do."""


class LogOptions(msgspec.Struct, frozen=True):
    """How a log process runs."""

    directory: Path
    segment_bytes: int = 64 << 20
    reserve_bytes: int = 0
    """Free space kept for what is accepted already; 0: 64 MiB or 2 % of the disk, whichever is more."""
    group_seconds: float = 0.004
    """Most time from one group to the next when many records come."""
    policy: Policy = Policy()


class LogServer:
    """The journals, who writes to them and who is told."""

    def __init__(self, options: LogOptions, now: Callable[[], float]) -> None:
        self.options = options
        self.now = now
        self.topics: list[wire.TopicSpec] = []
        """By topic number less one; fixed for life, new ones may be added."""
        self.sessions: set[Session] = set()
        self.tails: dict[int, list[tuple[Session, Feed]]] = {}
        """By partition, who reads it."""
        self.groups: dict[tuple[str, int], Group] = {}
        self.ends: dict[int, int] = {}
        """By partition, the offset after the last durable record."""
        self.full = False
        self._lock = _locked(options.directory)
        self._read_meta()
        milliseconds = lambda: int(now() * 1000)  # noqa: E731
        self.journals = [Journal(options.directory / name, options.segment_bytes, milliseconds) for name in JOURNALS]
        state, bodies = self.journals
        state.before_write = bodies.sync
        for journal in self.journals:
            self.ends.update(journal.state.ends)
        self.writers: list[Writer] = []
        self._server: asyncio.AbstractServer | None = None
        self._room_check: asyncio.TimerHandle | None = None
        self._look_again_at = 0.0
        self._preparing: set[int] = set()
        self._housekeeper = Housekeeper(options.policy, *self.journals)
        self._housekeeping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._sealed = [len(journal.segments) for journal in self.journals]
        self._gathering = bool(self.topics)
        """Members may be on their way back: what nobody claims is given to nobody yet."""

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        written = (self._state_written, self._bodies_written)
        for journal, tell in zip(self.journals, written, strict=True):
            self.writers.append(Writer(journal, loop, tell, self.options.group_seconds))
        self.check_room()
        for number in (wire.STATE, wire.BODIES):
            self._prepare_next(number)
        self._keeping = loop.create_task(self._keep_house())
        alone = self.options.directory / ALONE
        if self._gathering and not alone.exists():
            loop.call_later(GATHER_SECONDS, self._gathered)
        else:
            self._gathering = False
        alone.unlink(missing_ok=True)
        path = self.options.directory / wire.SOCKET
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(
                lambda: Session(self), wire.socket_path(self.options.directory)
            )
        finally:
            os.umask(before)
        log.info("the log is open", extra={"directory": str(self.options.directory)})

    async def stop(self) -> None:
        """Write what came, then close."""
        if self._server is not None:
            self._server.close()
        if self._keeping is not None:
            self._keeping.cancel()
        if not any(group.held for group in self.groups.values()):
            (self.options.directory / ALONE).touch()
        for writer in self.writers:
            await writer.stop()
        for session in list(self.sessions):
            session.close()
        for journal in self.journals:
            journal.close()
        if self._room_check is not None:
            self._room_check.cancel()

    # --- topics -------------------------------------------------------------------------------------------------------
    def declare(self, specs: list[wire.TopicSpec]) -> list[int]:
        """The numbers of the topics a client knows. Raises CannotServe when the directory has other partitions."""
        known = {spec.name: number for number, spec in enumerate(self.topics, 1)}
        for spec in specs:
            if spec.name not in known:
                continue
            have = self.topics[known[spec.name] - 1]
            if have.partitions != spec.partitions:
                raise CannotServe(
                    f"{self.options.directory} was made with {have.partitions} partitions of {spec.name}, the settings ask "
                    f"for {spec.partitions}; the count is fixed for life: set [bus] queue_partitions and lanes as they were"
                )
        changed = [spec for spec in specs if spec.name not in known]
        self.topics = [next((spec for spec in specs if spec.name == have.name), have) for have in self.topics] + changed
        if changed:
            self._write_meta()
        known = {spec.name: number for number, spec in enumerate(self.topics, 1)}
        self._close_gate()
        return [known[spec.name] for spec in specs]

    def topic(self, number: int) -> wire.TopicSpec:
        """The topic of this number. Raises LookupError."""
        if not 0 < number <= len(self.topics):
            raise LookupError(f"there is no topic {number}")
        return self.topics[number - 1]

    def journal_of(self, key: int) -> int:
        """Number of the journal that has a partition."""
        return self.topic(key >> 16).journal

    def _read_meta(self) -> None:
        path = self.options.directory / META
        if path.exists():
            self.topics = msgspec.json.decode(path.read_bytes(), type=list[wire.TopicSpec])

    def _write_meta(self) -> None:
        making = self.options.directory / f"{META}.making"
        with making.open("wb") as file:
            file.write(msgspec.json.encode(self.topics))
            file.flush()
            os.fsync(file.fileno())
        making.rename(self.options.directory / META)
        sync_directory(self.options.directory)

    # --- what was written ---------------------------------------------------------------------------------------------
    def _state_written(self, group: list[Item], answers: list[int]) -> None:
        self._tell(wire.STATE, group, answers)

    def _bodies_written(self, group: list[Item], answers: list[int]) -> None:
        self._tell(wire.BODIES, group, answers)

    def _tell(self, number: int, group: list[Item], answers: list[int]) -> None:
        """Acknowledge a durable group and give it to those who wait for it."""
        fresh: dict[int, list[tuple[int, bytes]]] = {}
        ends, tails = self.ends, self.tails
        for (acknowledge, append), base in zip(group, answers, strict=True):
            acknowledge(append, base)
            if base <= WRITTEN_BEFORE or not append.topic:
                continue
            key = append.topic << 16 | append.partition
            end = base + append.span
            if end > ends.get(key, 0):
                ends[key] = end
                if key in tails:
                    head = HEAD.pack(0, HEAD.size + len(append.payload), base, 0)
                    fresh.setdefault(key, []).append((base, head + append.payload))
        for key, batches in fresh.items():
            for session, feed in tails[key]:
                session.feed(feed, batches)
        for session in self.sessions:
            session.flush()
        sealed = len(self.journals[number].segments)
        if sealed != self._sealed[number]:
            self._sealed[number] = sealed
            self.keep_house()
        if REFUSED in answers:
            self.check_room(refused=True)
            return
        self._prepare_next(number)
        # By what is written, not by a clock of its own: an idle log does not wake up.
        if asyncio.get_running_loop().time() > self._look_again_at:
            self.check_room()

    async def _keep_house(self) -> None:
        """Compaction and retention, when a segment was sealed, after a trim, and now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._housekeeping.wait(), HOUSEKEEPING_SECONDS)
            self._housekeeping.clear()
            try:
                gone = await self._housekeeper.round(
                    self.topics,
                    int(self.now() * 1000),
                    self._slowest_tails(),
                    [functools.partial(_in_writer, w) for w in self.writers],
                )
            except OSError as error:
                log.error("compaction or retention failed, tried again later: %s", error)
                continue
            if gone:
                for session in self.sessions:
                    session.tell("dropped")

    def _slowest_tails(self) -> dict[int, int]:
        return {key: min(feed.next for _, feed in tails) for key, tails in self.tails.items()}

    def add_tail(self, session: Session, feed: Feed) -> None:
        """A client reads a partition, unless it is gone already."""
        if session in self.sessions:
            self.tails.setdefault(feed.key, []).append((session, feed))

    def drop_tail(self, feed: Feed) -> None:
        """It does not any more."""
        feed.closed = True
        left = [other for other in self.tails.pop(feed.key, []) if other[1] is not feed]
        if left:
            self.tails[feed.key] = left

    def keep_house(self) -> None:
        """There may be something to drop."""
        self._housekeeping.set()

    def _prepare_next(self, number: int) -> None:
        """Have a segment ready when the current one is full, away from the loop and the writer."""
        journal = self.journals[number]
        if number in self._preparing or journal.has_spare or (self.full and number == wire.BODIES):
            return
        self._preparing.add(number)

        def prepare() -> None:
            try:
                journal.prepare()
            except OSError as error:
                log.warning("no room for the next segment: %s", error)

        job = asyncio.get_running_loop().run_in_executor(None, prepare)
        job.add_done_callback(lambda _: self._preparing.discard(number))

    # --- room ---------------------------------------------------------------------------------------------------------
    def check_room(self, *, refused: bool = False) -> None:
        """Look at the free space; below the reserve, new mail is refused and what is accepted goes on."""
        self._look_again_at = asyncio.get_running_loop().time() + ROOM_SECONDS
        disk = os.statvfs(self.options.directory)
        reserve = self.options.reserve_bytes or max(64 << 20, disk.f_blocks * disk.f_frsize // 50)
        full = refused or disk.f_bavail * disk.f_frsize < reserve
        if full != self.full:
            self.full = full
            (log.error if full else log.info)("the disk is full" if full else "there is room on the disk again")
            self._close_gate()
            for session in self.sessions:
                session.tell("full", full)
        if self._room_check is not None:
            self._room_check.cancel()
        self._room_check = None
        if full:
            self._room_check = asyncio.get_running_loop().call_later(ROOM_SECONDS, self.check_room)

    def _close_gate(self) -> None:
        gated = frozenset(number for number, spec in enumerate(self.topics, 1) if spec.gated)
        for journal in self.journals:
            journal.closed = gated if self.full else frozenset()

    # --- groups -------------------------------------------------------------------------------------------------------
    def group(self, name: str, topic: int) -> Group:
        """The group of this name on a topic."""
        return self.groups.setdefault((name, topic), Group(self.topic(topic).partitions))

    def _gathered(self) -> None:
        self._gathering = False
        for group in self.groups.values():
            self.rebalance(group)

    def rebalance(self, group: Group) -> None:
        """Tell the members what changed for them."""
        if self._gathering:
            return
        give, ask = group.moves()
        for verb, moves in (("ask", ask), ("give", give)):
            for member, partitions in moves.items():
                for session in self.sessions:
                    session.tell_member(verb, member, partitions)

    def append(self, journal: int, item: Item) -> None:
        """Have a batch written."""
        self.writers[journal].put(item)


async def _in_writer(writer: Writer, act: Callable[[], None]) -> None:
    """Run `act` in a writing thread, between two groups."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            act()
        except OSError as error:
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, None)

    writer.put(run)
    await done


def _locked(directory: Path) -> int:
    """The directory, made if need be, and ours alone. Raises CannotServe."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotServe(
            f"{directory}: cannot be written ({error.strerror}); set [bus] directory to one that can"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotServe(f"{directory} belongs to another log process that is running; stop it first") from error
    return descriptor
