"""`mail.site` at the beginning of an ownership: what the last owner left, and what a zombie wrote over it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mailfleet_router.decisions.shaping import warmup
from mailfleet_router.decisions.shaping.shaper import Shaper


class States:
    """The records of one partition of `mail.site`: of each key the one that the newest owner wrote."""

    def __init__(self, shaper: Shaper) -> None:
        self._shaper = shaper
        self._found: dict[bytes, tuple[int, bytes | None]] = {}
        self._wrong: dict[str, None] = {}
        self._restored = False
        self.unread = 0
        """Records that are not understood; their scopes start without a memory."""

    def read(self, key: bytes, epoch: int, value: bytes | None, ours: int) -> None:
        """One record, in order. What an older owner writes after us must not be the last word on its key."""
        if self._restored:
            if epoch < ours:
                self._wrong[key.decode(errors="replace")] = None
        elif epoch >= self._found.get(key, (-1, None))[0]:
            self._found[key] = (epoch, value)

    def restore(self, now: float) -> None:
        """Everything was read."""
        for key, (_, value) in self._found.items():
            name = key.decode(errors="replace")
            if value is None:
                continue
            if name.startswith("warmup|"):
                self._shaper.warm_states[name] = value
                continue
            try:
                self._shaper.learned.read(name, value, now)
            except (msgspec.MsgspecError, ValueError):
                self.unread += 1
        self._found.clear()
        self._restored = True

    def repairs(self) -> Iterator[tuple[str, bytes | None]]:
        """What is to be written again."""
        wrong, self._wrong = self._wrong, {}
        for key in wrong:
            warm = self._shaper.warms.get(key)
            if warm is not None:
                yield key, warmup.encode(warm.state)
            elif key in self._shaper.warm_states:
                yield key, self._shaper.warm_states[key]
            else:
                yield key, self._shaper.learned.value(key)
