"""`python -m mailfleet_egress`: wiring only. `… check` tells clients their address, `… user` makes a line for users_file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import sys

from mailfleet_core import logs
from mailfleet_core.service import Alone, main_alone
from mailfleet_egress.decisions import users
from mailfleet_egress.settings import EgressProxySettings, check
from mailfleet_egress.shell import checking
from mailfleet_egress.shell.service import EgressProxy


def build(context: Alone) -> EgressProxy:
    """The proxy as this process runs it. Raises SettingsError."""
    settings = context.settings.section("egress_proxy", EgressProxySettings)
    check(settings)
    context.drain_seconds = settings.drain_seconds + 5.0
    return EgressProxy(context, settings)


def tell(arguments: list[str]) -> None:
    """`check`: run outside, it answers each connection with the address it came from."""
    parser = argparse.ArgumentParser(prog="mailfleet_egress check", description=tell.__doc__)
    parser.add_argument("--listen", default="127.0.0.1:2525", help="address:port")
    options = parser.parse_args(arguments)
    logs.setup("egress-check", "auto", "info")
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(checking.serve(options.listen))
        except (OSError, ValueError) as error:
            sys.exit(f"mailfleet egress: --listen {options.listen}: {error}")


def user(arguments: list[str]) -> None:
    """`user`: reads a password and prints the line for users_file that stands for it."""
    parser = argparse.ArgumentParser(prog="mailfleet_egress user", description=user.__doc__)
    parser.add_argument("name")
    name = parser.parse_args(arguments).name
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password or ":" in name or not name:
        sys.exit("mailfleet egress: a name without a colon, and a password that is not empty")
    sys.stdout.write(f"{name}:{users.hashed(password, os.urandom(16))}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        tell(sys.argv[2:])
    elif sys.argv[1:2] == ["user"]:
        user(sys.argv[2:])
    else:
        main_alone("egress", build)
