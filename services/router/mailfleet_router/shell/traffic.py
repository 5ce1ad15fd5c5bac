"""The traffic policy from files: the shipped one, and one's own over it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from mailfleet_core.settings import SettingsFile
from mailfleet_router.decisions.shaping.policy_file import Policy, over, read
from mailfleet_router.decisions.shaping.schema import Traffic
from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.settings import RouterSettings

OWN_FILE = "policy.yaml"


@cache
def shipped() -> Policy:
    """The policy in this package: receivers, limits and retry times in one file, response rules in another."""
    folder = files("mailfleet_router") / "policy"
    traffic, responses = (
        read((folder / name).read_text(encoding="utf-8"), f"mailfleet_router/policy/{name}")
        for name in ("traffic.yaml", "responses.yaml")
    )
    # Nobody's rules come before those of the other file: they are one policy in two parts.
    return over(traffic, responses)


def own_file(settings: SettingsFile) -> Path | None:
    """The own policy that the settings mean: the one they name, else `policy.yaml` beside them if there is one."""
    named = settings.section("router", RouterSettings).policy_file
    if named:
        return Path(named)
    beside = Path(settings.origin).resolve().parent / OWN_FILE
    return beside if beside.exists() else None


def present(path: Path | None) -> Path | None:
    """`path`, or None while the file is still to come into a directory that is there: it is obeyed when it comes."""
    if path is not None and path.parent.is_dir() and not path.exists():
        return None
    return path


class TrafficPolicy(NamedTuple):
    """The policy in force, and what of it is one's own."""

    policy: Policy
    own: Traffic


NO_TRAFFIC = TrafficPolicy(Policy(Traffic(version=1), {}), Traffic(version=1))
"""Nothing is said."""


def load(path: Path | None) -> Policy:
    """The policy in `path` over the shipped one; None: the shipped one. Raises PolicyError."""
    return load_both(path).policy


def load_both(path: Path | None) -> TrafficPolicy:
    """The same, and what of it stands in `path`. Raises PolicyError."""
    if path is None:
        return TrafficPolicy(shipped(), Traffic(version=1))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8: {error}") from error
    own = read(text, str(path))
    return TrafficPolicy(own if own.traffic.base == "none" else over(own, shipped()), own.traffic)
