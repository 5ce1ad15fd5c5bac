"""What is started, and in which order it starts and stops."""

from __future__ import annotations

import socket
from pathlib import Path

from mailfleet_cli.plan import STOP_ORDER, Listener, plan, taken
from mailfleet_cli.settings import RunSettings
from mailfleet_cli.supervisor import back_off
from mailfleet_core.settings import BusSettings


def planned(run: RunSettings, bus: BusSettings) -> list[str]:
    return [process.name for process in plan(run, bus, Path("running.toml"), "var/mailfleet.toml", 2)]


def test_one_machine_runs_the_log_the_sink_and_one_of_each_service() -> None:
    assert planned(RunSettings(), BusSettings()) == ["log", "sink", "ingest-0", "router-0", "sender-0"]


def test_on_kafka_no_log_process_is_started() -> None:
    assert "log" not in planned(RunSettings(), BusSettings(kind="kafka"))


def test_with_real_delivery_no_sink_is_started() -> None:
    assert "sink" not in planned(RunSettings(deliver=True), BusSettings())


def test_every_process_has_a_place_in_the_order_of_stopping() -> None:
    found = plan(RunSettings(ingest_processes=2), BusSettings(), Path(), "x", 2)
    assert {process.kind for process in found} == set(STOP_ORDER)


def test_new_mail_stops_first_and_the_log_last() -> None:
    assert (STOP_ORDER[0], STOP_ORDER[-1]) == ("ingest", "log")


def test_every_process_has_its_own_pages() -> None:
    found = plan(RunSettings(sender_processes=3), BusSettings(), Path(), "x", 2)
    assert len({process.ready_at for process in found}) == len(found)


def test_pages_for_others_are_asked_at_the_loopback_by_ourselves() -> None:
    found = plan(RunSettings(http_address="0.0.0.0"), BusSettings(), Path(), "x", 2)
    ingest = next(process for process in found if process.kind == "ingest")
    assert ingest.ready_at == "http://127.0.0.1:2580/readyz"
    assert ingest.command[-1] == "0.0.0.0:2580"


def test_a_port_in_use_is_seen_before_the_start() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listener = Listener("x", "127.0.0.1", other.getsockname()[1], "[x] port")
        assert taken((listener,)) == (listener,)
    assert taken((listener,)) == ()


def test_a_first_death_is_repaired_at_once_and_repeated_ones_ever_later() -> None:
    waits = [back_off(deaths) for deaths in range(1, 12)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 30
