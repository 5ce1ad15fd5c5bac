"""The embedded log and its disk: power cuts, no room, a second owner."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfleet_core.bus.port import BusFull, BusUnavailable
from mailfleet_core.bus.topics import BODY, QUEUE
from support import needs
from support.embedded_bus import LogProcess, embedded_bus


@pytest.fixture
def root() -> None:
    """Mounting file systems is root's."""
    needs.need("root")


MEBIBYTE = 1 << 20


@contextlib.contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """An ext4 image as a file system."""
    where.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def make_image(path: Path, size: int) -> Path:
    """An empty ext4 file system in a file."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path


@pytest.mark.real
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("how", ["place", "append"])
async def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, how: str) -> None:
    image = make_image(tmp_path / "disk", 256 * MEBIBYTE)
    acknowledged: dict[tuple[str, int], bytes] = {}

    with mounted(image, tmp_path / "before") as directory:
        async with embedded_bus(directory / "log", "--segment-bytes", str(4 * MEBIBYTE)) as log:
            bus = await log("writer")

            async def writer(number: int) -> None:
                for turn in range(100_000):
                    value = b"%d-%d " % (number, turn) * 200
                    write = bus.place if how == "place" else bus.append
                    at = await write(BODY, number % 4, b"%d" % number, value)
                    acknowledged[QUEUE, await bus.append(QUEUE, number % 4, b"%d" % number, value)] = value
                    # A placed body is promised only by the record that came after it.
                    acknowledged[BODY, at] = value

            writers = [asyncio.ensure_future(writer(number)) for number in range(20)]
            while len(acknowledged) < 5000:
                await asyncio.sleep(0.01)
            # First what was promised, then the disk: what is promised later may be missing.
            promised = dict(acknowledged)
            await asyncio.to_thread(shutil.copyfile, image, tmp_path / "copy")
            assert len(acknowledged) > len(promised)
            for task in writers:
                task.cancel()
            await asyncio.wait(writers)
    with mounted(tmp_path / "copy", tmp_path / "after") as directory:
        async with embedded_bus(directory / "log", "--segment-bytes", str(4 * MEBIBYTE)) as log:
            bus = await log("reader")
            for (topic, offset), value in promised.items():
                assert await bus.read(topic, int(value.partition(b"-")[0]) % 4, offset, len(value)) == value


@pytest.mark.real
@pytest.mark.usefixtures("root")
async def test_a_full_disk_refuses_new_mail_lets_accepted_mail_go_on_and_recovers(tmp_path: Path) -> None:
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(where)], check=True)
    try:
        options = ("--segment-bytes", str(4 * MEBIBYTE), "--reserve-bytes", str(16 * MEBIBYTE))
        async with embedded_bus(where / "log", *options) as log:
            bus = await log("client")
            kept = [await bus.append(BODY, 0, b"k", b"kept" * 1000)]
            (where / "other").write_bytes(bytes(38 * MEBIBYTE))
            async with asyncio.timeout(10):
                while bus.healthy:
                    # The append that finds the disk full may be one of these.
                    with contextlib.suppress(BusFull):
                        kept.append(await bus.append(BODY, 0, b"k", b"kept" * 1000))
            with pytest.raises(BusFull):
                await bus.append(BODY, 0, b"k", b"refused")
            await asyncio.gather(*[bus.append(QUEUE, 0, b"k", b"state" * 60) for _ in range(1000)])
            (where / "other").unlink()
            async with asyncio.timeout(10):
                while not bus.healthy:
                    await asyncio.sleep(0.05)
            kept.append(await bus.append(BODY, 0, b"k", b"kept" * 1000))
            for offset in kept:
                assert await bus.read(BODY, 0, offset, 4000) == b"kept" * 1000
            assert await log.kill(signal.SIGTERM) == 0
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.real
@pytest.mark.usefixtures("root")
async def test_a_disk_without_a_byte_left_loses_nothing_and_recovers(tmp_path: Path) -> None:
    image = make_image(tmp_path / "disk", 48 * MEBIBYTE)
    with mounted(image, tmp_path / "small") as directory:
        async with embedded_bus(directory / "log", "--segment-bytes", str(4 * MEBIBYTE)) as log:
            bus = await log("client")
            with contextlib.suppress(OSError):
                (directory / "other").write_bytes(bytes(48 * MEBIBYTE))
            written, refused = [], 0
            for number in range(60):
                try:
                    written.append((await bus.append(QUEUE, 0, b"%d" % number, bytes(200_000)), number))
                except BusFull:
                    refused += 1
            assert refused
            (directory / "other").unlink()
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(BusFull):
                        written.append((await bus.append(QUEUE, 0, b"again", b""), 1000))
                        break
                    await asyncio.sleep(0.1)
            for offset, _ in written:
                await bus.read(QUEUE, 0, offset, 200_000)


async def test_two_log_processes_never_own_one_directory(tmp_path: Path) -> None:
    async with embedded_bus(tmp_path / "log") as log:
        await log("client")
        second = LogProcess(tmp_path / "log", {}, [])
        await second.restart()
        assert await second.kill(0) != 0
        bus = await log("another")
        assert await bus.append(QUEUE, 0, b"k", b"v")


async def test_socket_and_directory_are_for_their_owner_only(tmp_path: Path) -> None:
    async with embedded_bus(tmp_path / "log") as log:
        await log("client")
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "log" / "log.sock").stat().st_mode & 0o777 == 0o600


async def test_another_count_of_partitions_is_refused_with_what_to_set(tmp_path: Path) -> None:
    async with embedded_bus(tmp_path / "log") as log:
        await log("client")
        log.settings = type(log.settings)(directory=str(tmp_path / "log"), queue_partitions=8)
        with pytest.raises(BusUnavailable, match=r"4 partitions of .* queue_partitions"):
            await log("wrong")


async def test_without_a_log_process_the_start_says_what_to_start(tmp_path: Path) -> None:
    log = LogProcess(tmp_path / "nowhere", {}, [])
    with pytest.raises(BusUnavailable, match="mailfleet run"):
        await log("client", connect_seconds=0.2)


async def test_an_append_that_is_not_acknowledged_in_time_fails_and_is_never_sent_again(tmp_path: Path) -> None:
    async with embedded_bus(tmp_path / "log") as log:
        bus = await log("client", delivery_seconds=0.5)
        await bus.append(QUEUE, 0, b"k", b"first")
        await log.kill()
        with pytest.raises(BusUnavailable):
            await bus.append(QUEUE, 0, b"k", b"given up")
        assert bus.in_flight_bytes == 0
        await log.restart()
        async with asyncio.timeout(10):
            while not bus.healthy:
                await asyncio.sleep(0.05)
        last = await bus.append(QUEUE, 0, b"k", b"last")
        tail = bus.tail(QUEUE, 0, 0)
        found = await anext(tail)
        while found[-1].offset < last:
            found += await anext(tail)
        assert [record.value for record in found] == [b"first", b"last"]


async def test_a_busy_log_stays_bounded_and_keeps_what_is_alive(tmp_path: Path) -> None:
    options = ("--segment-bytes", str(4 * MEBIBYTE), "--compact-bytes", str(4 * MEBIBYTE), "--settle-seconds", "0")
    async with embedded_bus(tmp_path / "log", *options) as log:
        bus = await log("client")
        alive = await bus.append(QUEUE, 0, b"alive", b"1")
        for turn in range(120):
            await asyncio.gather(*[bus.append(QUEUE, 0, b"%d" % number, b"%d" % turn * 500) for number in range(400)])
        async with asyncio.timeout(30):
            while sum(path.stat().st_size for path in (tmp_path / "log" / "state").iterdir()) > 24 * MEBIBYTE:
                await asyncio.sleep(0.1)
        assert await bus.read(QUEUE, 0, alive, 1) == b"1"
        folded: dict[bytes, bytes | None] = {}
        end, tail, last = await bus.end(QUEUE, 0), bus.tail(QUEUE, 0, 0), 0
        while last < end - 1:
            batch = await anext(tail)
            folded |= {record.key: record.value for record in batch}
            last = batch[-1].offset
        assert folded == {b"alive": b"1"} | {b"%d" % number: b"119" * 500 for number in range(400)}


async def test_bodies_are_dropped_when_they_are_trimmed(tmp_path: Path) -> None:
    async with embedded_bus(tmp_path / "log", "--segment-bytes", str(4 * MEBIBYTE)) as log:
        bus = await log("client")
        offsets = [await bus.append(BODY, 1, b"k", bytes(500_000)) for _ in range(40)]
        await bus.trim(BODY, 1, offsets[-1])
        async with asyncio.timeout(20):
            while len(list((tmp_path / "log" / "bodies").glob("*.raw"))) > 2:
                await asyncio.sleep(0.1)
        assert await bus.read(BODY, 1, offsets[-1], 500_000) == bytes(500_000)
