"""A dispatch on its way through the sender, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailfleet_core.model.reply import Answer
from mailfleet_core.model.wire import Dispatch
from mailfleet_core.smtp.client import Body

if TYPE_CHECKING:
    from mailfleet_sender.shell.lane import Lane


class Share:
    """Bytes that one egress path holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


@dataclass(slots=True, eq=False)
class Job:
    """One attempt in hand."""

    dispatch: Dispatch
    lane: Lane
    offsets: list[int]
    """Of all dispatches that asked for it; more than one when a new router repeated it."""
    key: tuple[bytes, int]
    body: Body | None = None
    held_bytes: int = 0
    share: Share | None = None
    fetching: bool = False
    started_at: float = 0.0
    moved: bool = False
    """It was taken from a kept connection that had died, to a new one; that is done once."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a connection is: told in every outcome of it."""

    mx: str = ""
    address: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """No connection came about: one answer for all recipients of all units that wait for it."""

    answer: Answer
    link: Link = field(default_factory=Link)
