"""`mail.site` at the beginning of an ownership: what the last owner left, and what a zombie wrote over it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mailfleet_core.model import complaint
from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.wire import Malformed
from mailfleet_router.decisions.shaping import warmup
from mailfleet_router.decisions.shaping.shaper import Shaper


class States:
    """The records of one partition of `mail.site`: of each key the one that the newest owner wrote."""

    def __init__(self, shaper: Shaper) -> None:
        self._shaper = shaper
        self._found: dict[bytes, tuple[int, bytes | None]] = {}
        self._wrong: dict[str, None] = {}
        self._complaints: list[tuple[str, int, Complaint]] = []
        self._restored = False
        self.unread = 0
        """Records that are not understood; their scopes start without a memory."""

    def read(self, key: bytes, epoch: int, value: bytes | None, ours: int, offset: int = -1) -> None:
        """One record, in order. What an older owner writes after us must not be the last word on its key. Complaints are
        written by anybody."""
        if key.startswith(complaint.PREFIX):
            self._complain(key.decode(errors="replace"), offset, value)
        elif self._restored:
            if epoch < ours:
                self._wrong[key.decode(errors="replace")] = None
        elif epoch >= self._found.get(key, (-1, None))[0]:
            self._found[key] = (epoch, value)

    def _complain(self, key: str, offset: int, value: bytes | None) -> None:
        if value is None:
            return
        try:
            said = complaint.decode(value)
        except Malformed:
            self.unread += 1
            return
        if self._restored:
            self._shaper.complained(key, offset, said, fresh=True)
        else:
            self._complaints.append((key, offset, said))

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
        for name, offset, said in self._complaints:
            self._shaper.complained(name, offset, said, fresh=False)
        self._complaints.clear()
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
