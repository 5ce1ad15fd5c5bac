"""A path is silent for twenty seconds: nothing is lost, nothing is delivered twice, and it goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from exam.stage import Stage, loading, stage
from support import addresses, needs
from support.kafka import kafka_broker
from support.mailfleet import Fleet
from support.proxy import Proxy, proxy

pytestmark = [pytest.mark.real, pytest.mark.slow]
COUNTS = {"ingest": 1, "router": 1, "sender": 1}
WEIGHTS = "ok=70,slow=10,grey=10,norcpt=10"
CUT_SECONDS, RATE, COUNT = 20.0, 20.0, 700


@contextmanager
def running(made: Fleet) -> Iterator[Fleet]:
    """Start it, stop it."""
    try:
        made.start()
        yield made
    finally:
        made.stop()


@contextmanager
def behind_a_proxy(bus: str, directory: Path, scene: Stage) -> Iterator[tuple[Fleet, Proxy]]:
    """A fleet whose every process reaches the log through the proxy."""
    with ExitStack() as stack:
        known: list[Fleet] = []

        def who() -> dict[int, str]:
            return known[0].pids()

        if bus == "kafka":
            port = addresses.free_port()
            broker = stack.enter_context(kafka_broker(directory / "kafka", behind=port))
            middle = stack.enter_context(proxy({("127.0.0.1", port): ("127.0.0.1", broker.port)}, who))
            known.append(Fleet(directory / "fleet", COUNTS, broker, scene.settings))
        else:
            door = directory / "door"
            door.mkdir()
            settings = {**scene.settings, "bus": {"directory": str(door)}}
            known.append(Fleet(directory / "fleet", COUNTS, more=settings))
            (door / "bodies").symlink_to(known[0].log_directory / "bodies")
            middle = stack.enter_context(proxy({str(door / "log.sock"): str(known[0].log_directory / "log.sock")}, who))
        yield stack.enter_context(running(known[0])), middle


def cut_in_the_middle(scene: Stage, fleet: Fleet, middle: Proxy, name: str) -> None:
    """Load, cut, mend, wait for the last mail, judge."""
    with loading(scene, fleet, COUNT, RATE, "--weights", WEIGHTS) as load:
        time.sleep(8)
        middle.cut(name)
        time.sleep(CUT_SECONDS)
        middle.mend()
        load.wait()
    scene.settle(90)
    scene.keep_events(fleet)
    verdict = scene.verdict()
    assert verdict.faults() == [], fleet.logs(1500)
    assert verdict.duplicates == []
    assert verdict.accepted >= COUNT * 0.9
    assert all(fleet.ready(process) for process in fleet.names if process != "log")


@pytest.mark.parametrize("service", ["ingest", "router", "sender"])
@pytest.mark.parametrize("bus", ["embedded", "kafka"])
def test_a_service_that_does_not_reach_the_log(bus: str, service: str, tmp_path: Path) -> None:
    needs.need("knotd")
    with stage(tmp_path / "books") as scene, behind_a_proxy(bus, tmp_path, scene) as (fleet, middle):
        cut_in_the_middle(scene, fleet, middle, service)


def test_senders_that_do_not_reach_the_sites(tmp_path: Path) -> None:
    needs.need("knotd")
    with stage(tmp_path / "books") as scene:
        port = addresses.free_port()
        settings = {**scene.settings, "route": [{**scene.settings["route"][0], "port": port}]}
        ways = {(address, port): (address, scene.port) for address in scene.addresses}
        with proxy(ways) as middle, running(Fleet(tmp_path / "fleet", COUNTS, more=settings)) as fleet:
            cut_in_the_middle(scene, fleet, middle, "")
