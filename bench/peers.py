"""The servers a bench compares with, each durable (its own default fsyncs) and set up as its manual advises for relaying.

Each peer is a context: it starts in a directory of its own, relays everything it is given to one next hop, and can say
which processes it consists of.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_port, wait_for_port

CACHE = Path(os.environ.get("MAILFLEET_CACHE", Path.home() / ".cache" / "mailfleet"))
TICKS = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """The peer cannot be had on this machine; the text says what to install."""


@dataclass
class Running:
    """A started relay."""

    port: int
    roots: dict[str, list[int]]
    """Role → process ids; their descendants count too."""
    notes: str = ""
    _seen: dict[int, tuple[str, float]] = field(default_factory=dict)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system CPU of each role so far, its finished children included."""
        return {role: sum(_tree_cpu(pid) for pid in pids) for role, pids in self.roots.items()}

    def memory_mib(self) -> dict[str, float]:
        """Resident memory of each role's own process, MiB."""
        return {role: sum(_resident(pid) for pid in pids) / 2**20 for role, pids in self.roots.items()}


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _tree_cpu(root: int) -> float:
    """CPU seconds of a process, its living descendants, and those that it or they have waited for."""
    children: dict[int, list[int]] = {}
    own: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
            own[int(entry)] = sum(map(int, fields[11:15])) / TICKS
    total, queue = 0.0, [root]
    while queue:
        pid = queue.pop()
        total += own.get(pid, 0.0)
        queue += children.get(pid, [])
    return total


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; be rougher after 20 s."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def postfix(directory: Path, next_hop: int) -> Iterator[Running]:
    """Debian's Postfix: relayhost, no DNS, limits that would only slow one client lifted, logging off the disk's way."""
    if not shutil.which("postfix"):
        raise Unavailable("apt-get install postfix")
    port = free_port()
    etc, queue, data = directory / "etc", directory / "queue", directory / "data"
    for path in (etc, queue, data):
        path.mkdir(parents=True)
    shutil.chown(data, "postfix")
    for path in (directory, *directory.parents):
        if path.stat().st_mode & 0o005 != 0o005 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    (etc / "main.cf").write_text(
        textwrap.dedent(f"""\
        compatibility_level = 3.6
        queue_directory = {queue}
        data_directory = {data}
        maillog_file = /var/log/mailfleet-bench-postfix.log
        inet_interfaces = 127.0.0.1
        inet_protocols = ipv4
        myhostname = bench.example
        mydestination =
        mynetworks = 127.0.0.0/8
        relayhost = [127.0.0.1]:{next_hop}
        smtp_dns_support_level = disabled
        smtpd_client_connection_count_limit = 0
        smtpd_peername_lookup = no
        smtp_destination_concurrency_limit = 50
        initial_destination_concurrency = 20
        smtp_connection_cache_destinations = [127.0.0.1]:{next_hop}
        in_flow_delay = 0
        alias_maps =
        alias_database =
        """)
    )
    master = Path("/etc/postfix/master.cf").read_text()
    lines = [line for line in master.splitlines() if not line.startswith("smtp      inet")]
    lines = [line.replace(" y       ", " n       ", 1) if " y       " in line else line for line in lines]
    lines.insert(0, f"127.0.0.1:{port} inet n - n - - smtpd")
    (etc / "master.cf").write_text("\n".join(lines) + "\n")
    subprocess.run(["postfix", "-c", str(etc), "start"], check=True, capture_output=True)
    try:
        wait_for_port(port)
        pid = int((queue / "pid" / "master.pid").read_text())
        yield Running(port, {"postfix": [pid]}, "fsync before 250")
    finally:
        subprocess.run(["postfix", "-c", str(etc), "stop"], check=False, capture_output=True)


@contextmanager
def exim(directory: Path, next_hop: int) -> Iterator[Running]:
    """Debian's Exim: a manual route to the next hop, delivery at once, as many in parallel as the load asks."""
    found = sorted(CACHE.glob("exim*/usr/sbin/exim4")) or [Path(p) for p in [shutil.which("exim4")] if p]
    if not found:
        raise Unavailable("make servers")
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    for part in ("spool", "log"):
        (directory / part).mkdir()
    # Exim gives up root and starts itself again, so the program must lie where everybody may look.
    program = Path(shutil.copy(found[-1], directory / "exim4"))
    configuration = directory / "exim.conf"
    configuration.write_text(
        textwrap.dedent(f"""\
        exim_path = {program}
        exim_user = mail
        exim_group = mail
        spool_directory = {directory}/spool
        log_file_path = {directory}/log/%slog
        pid_file_path = {directory}/exim.pid
        primary_hostname = bench.example
        local_interfaces = 127.0.0.1
        daemon_smtp_ports = {port}
        host_lookup =
        rfc1413_query_timeout = 0s
        smtp_accept_max = 200
        smtp_accept_queue_per_connection = 0
        smtp_accept_max_nonmail = 100000
        queue_run_max = 20
        remote_max_parallel = 20
        split_spool_directory = true
        acl_smtp_rcpt = accept
        acl_smtp_data = accept
        begin routers
        all:
          driver = manualroute
          transport = out
          route_list = * 127.0.0.1
          self = send
        begin transports
        out:
          driver = smtp
          port = {next_hop}
          connection_max_messages = 500
          hosts_avoid_tls = *
          allow_localhost
        begin retry
        * * F,2h,1m
        """)
    )
    for path in (directory, directory / "spool", directory / "log"):
        shutil.chown(path, "mail", "mail")
    configuration.chmod(0o644)
    for path in (directory, *directory.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    extra = {"LD_LIBRARY_PATH": ":".join(str(p) for p in sorted(CACHE.glob("exim*/usr/lib/*-linux-gnu")))}
    command = [str(program), "-bdf", "-q1s", "-C", str(configuration)]
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **extra}, stdout=output, stderr=output)
    try:
        wait_for_port(port)
        yield Running(port, {"exim": [process.pid]}, "fsync before 250")
    finally:
        stop(process)


HARAKA = "3.1.7"


@contextmanager
def haraka(directory: Path, next_hop: int) -> Iterator[Running]:
    """npm's Haraka: outbound queue (it syncs its files), forced next hop, one worker for each core."""
    home = CACHE / f"haraka-{HARAKA}"
    program = home / "node_modules" / ".bin" / "haraka"
    if not program.exists():
        if not shutil.which("npm"):
            raise Unavailable("apt-get install nodejs npm")
        home.mkdir(parents=True, exist_ok=True)
        # Two of its dependencies name versions that were withdrawn; the ones before them serve.
        (home / "package.json").write_text(
            json.dumps(
                {
                    "name": "peer",
                    "version": "1.0.0",
                    "dependencies": {"Haraka": HARAKA},
                    "overrides": {"libqp": "2.1.1", "encoding-japanese": "2.2.0"},
                }
            )
        )
        subprocess.run(["npm", "install", "--no-fund", "--no-audit"], cwd=home, check=True, capture_output=True)
    port = free_port()
    subprocess.run([str(program), "-i", str(directory)], check=True, capture_output=True)
    etc = directory / "config"
    (etc / "smtp.ini").write_text(f"listen=127.0.0.1:{port}\nnodes=2\n[headers]\n")
    (etc / "plugins").write_text("relay\n")
    (etc / "relay.ini").write_text("[relay]\nacl=true\nforce_routing=true\n")
    (etc / "relay_acl_allow").write_text("127.0.0.0/8\n")
    hop = json.dumps({"action": "accept", "nexthop": f"127.0.0.1:{next_hop}"})
    (etc / "relay_dest_domains.ini").write_text(f"[domains]\nany={hop}\nexample.net={hop}\n")
    (etc / "outbound.ini").write_text("concurrency_max=50\nenable_tls=false\nlocal_mx_ok=true\n")
    (etc / "log.ini").write_text("[main]\nlevel=error\n")
    (etc / "me").write_text("bench.example\n")
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen([str(program), "-c", str(directory)], stdout=output, stderr=output)
    try:
        wait_for_port(port)
        time.sleep(1)
        yield Running(port, {"haraka": [process.pid]}, "fsync before 250")
    finally:
        stop(process)
