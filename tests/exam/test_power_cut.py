"""The power goes: what was answered 250 is in the log's image, and is delivered by a fleet started on it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from exam.stage import Stage, loading, stage
from support import disks, needs
from support.mailfleet import Fleet, fleet

pytestmark = [pytest.mark.real, pytest.mark.slow]
EVERYTHING = {"ingest": 1, "router": 1, "sender": 1}
ONLY_INGEST = {"ingest": 1, "router": 0, "sender": 0}
WEIGHTS = "ok=80,slow=10,norcpt=10"
UNSYNCED = "written but not synced"


def size(file: Path) -> int:
    """Its length; 0 when it is not there."""
    return file.stat().st_size if file.exists() else 0


def wait_for_mails(scene: Stage, count: int) -> None:
    """Return when so many recipients were accepted."""
    deadline = time.monotonic() + 60
    while len(scene.accepted()) < count:
        assert time.monotonic() < deadline, scene.progress()
        time.sleep(0.05)


def cut_power(scene: Stage, running: Fleet, image: Path, copy: Path) -> set[tuple[str, str]]:
    """Copy the image at an instant; what the load had been told by then."""
    (running.log_directory.parent / UNSYNCED).write_bytes(b"x" * 100_000)
    told = scene.accepted()
    log = running.processes["log"]
    log.signal(signal.SIGSTOP)
    disks.as_after_a_power_cut(image, copy)
    for name in running.names:
        running.kill(name)
    return told


@pytest.mark.parametrize("counts", [ONLY_INGEST, EVERYTHING], ids=["while accepting", "while delivering"])
def test_a_power_cut_loses_no_accepted_mail(counts: dict[str, int], tmp_path: Path) -> None:
    needs.need("root", "knotd")
    image, copy = tmp_path / "disk.img", tmp_path / "cut.img"
    with stage(tmp_path / "books") as scene:
        with disks.ext4(image, tmp_path / "disk", megabytes=768) as disk:
            first = Fleet(tmp_path / "first", counts=counts, log_directory=disk / "log", more=scene.settings)
            first.start()
            with loading(scene, first, 5000, 150.0, "--weights", WEIGHTS):
                wait_for_mails(scene, 1000)
                told = cut_power(scene, first, image, copy)
        with disks.ext4(copy, tmp_path / "after") as disk:
            assert size(disk / UNSYNCED) == 0, "the copy is no power cut: it has what nobody synced"
            settings = {"counts": EVERYTHING, "log_directory": disk / "log", "more": scene.settings}
            with fleet(tmp_path / "second", **settings):
                deadline = time.monotonic() + 90
                while (missing := told - scene.ended()) and time.monotonic() < deadline:
                    time.sleep(0.2)
    assert len(told) >= 1000
    assert missing == set()
    verdict = scene.verdict()
    assert not [fault for fault in verdict.wrong if fault not in ("LOST", "not exactly one end told")]


def test_the_copy_of_an_image_has_what_was_synced(tmp_path: Path) -> None:
    needs.need("root")
    image, copy = tmp_path / "disk.img", tmp_path / "cut.img"
    with disks.ext4(image, tmp_path / "disk", megabytes=64) as disk:
        for name, sync in (("synced", True), ("not", False)):
            with (disk / name).open("wb") as file:
                file.write(b"x" * 50_000)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        disks.as_after_a_power_cut(image, copy)
    with disks.ext4(copy, tmp_path / "after") as disk:
        assert size(disk / "synced") == 50_000
        assert size(disk / "not") == 0
