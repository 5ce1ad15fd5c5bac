"""Kafka behind TLS and passwords: every combination the settings name, and what is said when it does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfleet_core.bus.kafka import KafkaBus
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.bus.topics import BODY, QUEUE
from mailfleet_core.settings import BusSettings
from support import certificates
from support.kafka import Secured, kafka_broker

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Secured, Path, Path]]:
    """A broker with all listeners, its certificate and the file with the password."""
    directory = tmp_path_factory.mktemp("secured")
    certificate = certificates.make(directory, "127.0.0.1")
    secured = Secured(certificate, directory / "store.pem")
    password = directory / "password"
    password.write_text(secured.password + "\n")
    with kafka_broker(directory / "kafka", secured=secured):
        yield secured, certificate.certificate, password


def settings(base: tuple[Secured, Path, Path], security: str, mechanism: str) -> BusSettings:
    secured, authority, password = base
    return BusSettings(
        kind="kafka",
        bootstrap=f"127.0.0.1:{secured.ports[security]}",
        security=security,
        sasl_mechanism=mechanism,
        username=secured.user,
        password_file=str(password),
        ca_file=str(authority),
        topic_prefix=f"{security}-{mechanism}.".replace("_", "-"),
        queue_partitions=1,
        lanes=1,
    )


@pytest.mark.parametrize(
    ("security", "mechanism"),
    [
        ("SSL", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
    ],
)
async def test_appends_tails_and_reads_work_behind(
    base: tuple[Secured, Path, Path], security: str, mechanism: str
) -> None:
    bus = KafkaBus(settings(base, security, mechanism), "test")
    await bus.start()
    async with asyncio.timeout(30):
        body = bytes(300_000)
        at = await bus.append(BODY, 0, b"k", body)
        assert await bus.read(BODY, 0, at, len(body)) == body
        await bus.append(QUEUE, 0, b"k", b"v", b"t")
        assert [record.value for record in await anext(bus.tail(QUEUE, 0, 0))] == [b"v"]
        await bus.close()


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    base: tuple[Secured, Path, Path], tmp_path: Path
) -> None:
    other = certificates.make(tmp_path, "127.0.0.1")
    secured, _, password = base
    bus = KafkaBus(settings((secured, other.certificate, password), "SSL", "PLAIN"), "test")
    with pytest.raises(BusUnavailable, match="`security` and the credentials"):
        await asyncio.wait_for(bus.start(), 20)


async def test_a_wrong_password_is_told_at_the_start(base: tuple[Secured, Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another one")
    secured, authority, _ = base
    bus = KafkaBus(settings((secured, authority, wrong), "SASL_SSL", "SCRAM-SHA-512"), "test")
    with pytest.raises(BusUnavailable, match="`security` and the credentials"):
        await asyncio.wait_for(bus.start(), 20)
