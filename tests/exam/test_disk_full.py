"""The disk is full: clients are told to come back, nothing accepted is lost, and room is enough to go on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from exam.stage import Stage, loading, stage
from support import disks, needs
from support.mailfleet import fleet

pytestmark = [pytest.mark.real, pytest.mark.slow]
COUNTS = {"ingest": 1, "router": 1, "sender": 1}


def replies(scene: Stage) -> list[str]:
    """What the clients were told that were not accepted."""
    return [line["text"] for line in scene.book("load") if line["outcome"] == "refused"]


def wait_until(what: object, seconds: float, why: object) -> None:
    """Wait until the function `what` gives something true."""
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(0.2)


def test_a_full_disk_defers_mail_and_recovers_by_itself(tmp_path: Path) -> None:
    needs.need("root", "knotd")
    small = ("--segment-bytes", str(1 << 20))
    with stage(tmp_path / "books") as scene, disks.tmpfs(tmp_path / "disk", 160) as disk:
        at = {"log_directory": disk / "log", "log_arguments": small}
        with fleet(tmp_path / "fleet", counts=COUNTS, more=scene.settings, **at) as running:
            filler = disks.fill(disk, leave_bytes=24 << 20)
            with loading(scene, running, 1500, 40.0, "--weights", "ok=100", "--give-up-seconds", "60") as load:
                wait_until(lambda: len(replies(scene)) > 20, 60, scene.progress)
                refused = replies(scene)
                accepted_when_full = len(scene.accepted())
                filler.unlink()
                wait_until(lambda: len(scene.accepted()) > accepted_when_full + 100, 60, running.logs)
                load.wait()
            scene.settle(90)
            scene.keep_events(running)
    assert {text[:3] for text in refused} <= {"452", "421", "451"}
    assert any(text.startswith("452") for text in refused)
    assert scene.verdict().faults() == []
