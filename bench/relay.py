"""Mailfleet as a contender: its processes on the embedded log or on one Kafka broker, relaying to one next hop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peers import Running, stop
from ports import free_port, wait_for_port

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

SETTINGS = """\
[bus]
kind = "{bus}"
directory = "{directory}/log"
bootstrap = "{bootstrap}"

[logs]
level = "warning"

[ingest]
hostname = "bench.example"
[[ingest.listeners]]
kind = "trusted"
port = {port}
networks = ["127.0.0.0/8"]

[sender]
allowed_inside = ["127.0.0.0/8"]

[[route]]
name = "sink"
kind = "smart_host"
hosts = ["127.0.0.1"]
port = {next_hop}
tls = "off"
max_connections = {connections}
messages_per_connection = 1000
"""


@contextmanager
def mailfleet(directory: Path, next_hop: int, bus: str, connections: int = 20) -> Iterator[Running]:
    """A whole Mailfleet; `bus` is `embedded` or `kafka`."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with ExitStack() as stack:
        roots: dict[str, list[int]] = {}
        bootstrap = ""
        if bus == "kafka":
            from support.kafka import kafka_broker

            broker = stack.enter_context(kafka_broker(directory / "kafka"))
            bootstrap = broker.bootstrap
            assert broker.process
            roots["kafka"] = [broker.process.pid]
        settings = directory / "mailfleet.toml"
        values = {"bus": bus, "directory": directory, "bootstrap": bootstrap, "port": port, "next_hop": next_hop}
        settings.write_text(SETTINGS.format(connections=connections, **values))
        commands = {"log": ["mailfleet_core.bus.logd", "--directory", f"{directory}/log"]} if bus == "embedded" else {}
        for service in ("router", "sender", "ingest"):
            commands[service] = [f"mailfleet_{service}", "--config", str(settings), "--instance", f"{service}-0"]
        for name, command in commands.items():
            output = stack.enter_context((directory / f"{name}.out").open("wb"))
            process = subprocess.Popen([sys.executable, "-m", *command], stdout=output, stderr=output)
            stack.callback(stop, process)
            roots[name] = [process.pid]
        wait_for_port(port, 60)
        yield Running(port, roots, "fsync before 250")
