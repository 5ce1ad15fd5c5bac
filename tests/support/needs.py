"""The one rule for tests whose programs may be missing: skip with the command that adds them, or fail in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("MAILFLEET_CACHE", Path.home() / ".cache" / "mailfleet"))
"""Where `install_servers.sh` puts what Debian would not install side by side."""

EXIM = CACHE / "exim4-daemon-light/usr/sbin/exim4"
OPENSMTPD = CACHE / "opensmtpd/usr/sbin/smtpd"
NODE_MODULES = CACHE / "node/node_modules"
REMEDY = "run as root: tests/support/install_servers.sh"

_FILES = {"exim": EXIM, "opensmtpd": OPENSMTPD, "nodemailer": NODE_MODULES / "nodemailer"}
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str) -> str | None:
    """The path of a program, also where only root's PATH has it."""
    if name in _FILES:
        return str(_FILES[name]) if _FILES[name].exists() else None
    return shutil.which(name, path=_SYSTEM_PATH)


def missing(*names: str) -> str:
    """What of `names` is not on this machine, as a sentence; empty when all is there. `root` is a name too."""
    absent = [
        name for name in names if (name == "root" and os.geteuid() != 0) or (name != "root" and not program(name))
    ]
    return f"needs {', '.join(absent)}; {REMEDY}" if absent else ""


def leave_out(reason: str) -> None:
    """Skip the running test, or fail it where nothing may be left out (MAILFLEET_REQUIRE_ALL=1)."""
    if os.environ.get("MAILFLEET_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(*names: str) -> None:
    """Leave the running test out when one of `names` is missing."""
    if reason := missing(*names):
        leave_out(reason)
