"""What the tests of the whole system share: the receivers, and one running Mailfleet for each bus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from mailfleet_ingest.decisions.credentials import Credential
from mailfleet_ingest.shell import credential_file
from support import addresses, needs, town
from support.clients import Door
from support.kafka import kafka_broker
from support.mailfleet import Fleet, fleet
from support.ownership import public_directory
from support.town import Town

RECEIVERS = ("root", "postfix", "exim", "opensmtpd", "dovecot", "knotd")


@dataclass(frozen=True, slots=True)
class World:
    """A Mailfleet in a town."""

    town: Town
    fleet: Fleet
    door: Door
    short_port: int
    """The trusted listener of the stream `short`: reports a delay after some seconds, gives up after 35."""

    def why(self) -> str:
        """What everybody wrote, for a test that fails."""
        return self.fleet.logs(1000) + self.town.logs()


@pytest.fixture(scope="session")
def receivers() -> Iterator[Town]:
    """The town, once for all tests."""
    needs.need(*RECEIVERS)
    with public_directory("town") as directory, town.town(directory) as running:
        yield running


@pytest.fixture(scope="session", params=["embedded", "kafka"])
def world(request: pytest.FixtureRequest, receivers: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running Mailfleet of two processes for each service, on each bus in turn."""
    directory = tmp_path_factory.mktemp(request.param)
    trusted, short, submission = (addresses.free_port() for _ in range(3))
    settings = town.settings(receivers, directory / "tls", trusted=trusted, short=short, submission=submission)
    user = Credential(name=town.USER, tenant="shop", hash="", domains=("reports.test",))
    credential_file.add(directory / "fleet" / "credentials.toml", user, town.PASSWORD)
    with ExitStack() as stack:
        broker = stack.enter_context(kafka_broker(directory / "kafka")) if request.param == "kafka" else None
        counts = {"ingest": 2, "router": 2, "sender": 2}
        running = stack.enter_context(fleet(directory / "fleet", counts=counts, broker=broker, more=settings))
        door = town.door(directory / "tls", trusted=trusted, submission=submission)
        yield World(receivers, running, door, short)
