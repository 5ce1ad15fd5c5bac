"""`python -m mailfleet_core.bus.logd --directory DIR`: the process that owns the files of the embedded log."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from mailfleet_core import logs
from mailfleet_core.bus.embedded_housekeeping import Policy
from mailfleet_core.bus.embedded_server import CannotServe, LogOptions, LogServer
from mailfleet_core.clock import SystemClock


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    defaults = LogOptions(Path())
    parser = argparse.ArgumentParser(prog="mailfleet_core.bus.logd", description=__doc__)
    parser.add_argument("--directory", required=True, type=Path, help="where the log lies")
    parser.add_argument(
        "--segment-bytes", type=int, default=defaults.segment_bytes, help="size of a file (%(default)s)"
    )
    parser.add_argument("--reserve-bytes", type=int, default=0, help="free space below which new mail is refused")
    parser.add_argument(
        "--group-seconds", type=float, default=defaults.group_seconds, help="most time between syncs when busy"
    )
    parser.add_argument("--settle-seconds", type=float, default=300.0, help="age of raw log before compaction")
    parser.add_argument("--compact-bytes", type=int, default=Policy().compact_bytes, help="raw log before compaction")
    parser.add_argument("--history-bytes", type=int, default=Policy().history_bytes, help="most that events may take")
    parser.add_argument("--log-format", default="auto", help="json, console or auto")
    options = parser.parse_args(arguments)
    logs.setup("log", options.log_format, "info")
    # The writers hold the interpreter for microseconds at a time; the loop should not wait 5 ms for its turn.
    sys.setswitchinterval(0.0005)
    policy = Policy(options.compact_bytes, int(options.settle_seconds * 1000), options.history_bytes)
    chosen = LogOptions(options.directory, options.segment_bytes, options.reserve_bytes, options.group_seconds, policy)
    try:
        uvloop.run(serve(chosen))
    except CannotServe as error:
        sys.exit(f"mailfleet log: {error}")


async def serve(options: LogOptions) -> None:
    """Run one log process until it is told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = LogServer(options, SystemClock().now)
    await server.start()
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    main()
