"""The own traffic policy comes into force while the router runs, as soon as its file is another."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.shell.traffic import TrafficPolicy, load_both

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

Stamp = tuple[int, int, int] | None


class Reload:
    """Looks at one file."""

    def __init__(self, path: Path, changed: Callable[[TrafficPolicy], None]) -> None:
        """`changed` is given every policy that can be used; one that cannot is logged, and the old one stays."""
        self._path, self._changed = path, changed
        self._stamp = _stamp(path)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read the file if it is another than before."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            log.warning("the traffic policy is gone; the one in force stays", extra={"path": str(self._path)})
            return
        try:
            policy = await asyncio.to_thread(load_both, self._path)
        except PolicyError as error:
            log.error("the traffic policy cannot be used; the one in force stays", extra={"error": str(error)})
            return
        self._changed(policy)


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
