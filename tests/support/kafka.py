"""A real Kafka broker (KRaft, one node) for tests; its jars come from Maven Central, once, into a cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.certificates import Certificate
from support.needs import CACHE, leave_out

VERSION = "4.1.0"
KAFKA = CACHE / f"kafka-{VERSION}"
DEBIAN_PACKAGES = ("openjdk-17-jre-headless", "maven")

POM = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>mailfleet</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
</dependency></dependencies></project>
"""

PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.recovery.threads.per.data.dir=4
log.segment.delete.delay.ms=100
auto.create.topics.enable=false
"""


QUICK_START = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""A broker that is up soon: in runs of a minute the optimising compiler costs more than it gives."""


class Secured:
    """Listeners beside the plain one that want TLS, a password or both."""

    kinds = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
    user, password = "mailfleet", "it is one"

    def __init__(self, certificate: Certificate, store: Path) -> None:
        store.write_text(certificate.key.read_text() + certificate.certificate.read_text())
        self._store = store
        self.ports = {kind: _free_port() for kind in self.kinds}
        self.users = [
            word
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f"{mechanism}=[name={self.user},password={self.password}]")
        ]

    def add_to(self, properties: str) -> str:
        """The broker's properties with these listeners."""
        places = "".join(f",{kind}://127.0.0.1:{port}" for kind, port in self.ports.items())
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        added = [
            "inter.broker.listener.name=PLAINTEXT",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            + ",".join(f"{kind}:{kind}" for kind in self.kinds),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={self._store}",
        ]
        for kind in ("sasl_plaintext", "sasl_ssl"):
            added.append(f'listener.name.{kind}.plain.sasl.jaas.config={plain} user_{self.user}="{self.password}";')
            added += [f"listener.name.{kind}.scram-sha-{n}.sasl.jaas.config={scram}" for n in (256, 512)]
        lines = [
            line + places if line.startswith("advertised.listeners=") or line.startswith("listeners=") else line
            for line in properties.splitlines()
        ]
        return "\n".join(lines + added) + "\n"


class KafkaBroker:
    """One broker on 127.0.0.1 that can be killed and started again on the same data."""

    def __init__(
        self, directory: Path, data: Path | None = None, behind: int = 0, secured: Secured | None = None
    ) -> None:
        self.directory = directory
        self.secured = secured
        self.data = data or directory / "data"
        self.port, self.controller = _free_port(), _free_port()
        self.advertised = behind or self.port
        """Where clients are told to connect: `behind` is the port of a proxy that leads to `port`."""
        self.bootstrap = f"127.0.0.1:{self.advertised}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Is the process there?"""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        lib = jars()
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        text = PROPERTIES.format(controller=self.controller, port=self.port, advertised=self.advertised, data=self.data)
        properties.write_text(self.secured.add_to(text) if self.secured else text)
        if not (self.data / "meta.properties").exists():
            users = self.secured.users if self.secured else ()
            _java(
                lib, "kafka.tools.StorageTool", "format", "-t", "bWFpbGZsZWV0LXRlc3RzLQ", "-c", str(properties), *users
            )
        with (self.directory / "kafka.log").open("ab") as output:
            self.process = subprocess.Popen(
                ["java", *QUICK_START, "-cp", f"{lib}/*",
                 "kafka.Kafka", str(properties)], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._await_answer()

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def _await_answer(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise RuntimeError(f"Kafka did not start; the end of its log:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join((self.directory / "kafka.log").read_text(errors="replace").splitlines()[-20:])


@contextlib.contextmanager
def kafka_broker(
    directory: Path, data: Path | None = None, behind: int = 0, secured: Secured | None = None
) -> Iterator[KafkaBroker]:
    """A started broker; without java and mvn the test is left out (or fails, where nothing may be)."""
    broker = KafkaBroker(directory, data, behind, secured)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def jars() -> Path:
    """The directory of Kafka's jars; fetched the first time. Without mvn the test is left out."""
    if not all(map(shutil.which, ("java", "mvn"))):
        _install()
    found = KAFKA / "lib"
    if not found.exists():
        KAFKA.mkdir(parents=True, exist_ok=True)
        (KAFKA / "pom.xml").write_text(POM)
        arriving = KAFKA / "arriving"
        _run("mvn", "-q", "-B", "-f", str(KAFKA / "pom.xml"), "dependency:copy-dependencies",
             f"-DoutputDirectory={arriving}", "-DincludeScope=runtime")  # fmt: skip
        arriving.rename(found)
    return found


def _install() -> None:
    command = ("apt-get", "install", "-y", "--no-install-recommends", *DEBIAN_PACKAGES)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        leave_out(f"Kafka needs java 17 and mvn: sudo {' '.join(command)}")
    _run("apt-get", "update")
    _run(*command)


def _java(jars: Path, *arguments: str) -> None:
    _run("java", "-cp", f"{jars}/*", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        leave_out(f"`{' '.join(command)}` failed: {(done.stdout + done.stderr)[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
