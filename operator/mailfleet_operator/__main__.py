"""`python -m mailfleet_operator`: wiring only. With the argument `crds`: the resource types are applied, and that is all."""

from __future__ import annotations

import os
import sys

from mailfleet_core.dns.resolver import DnspythonResolver
from mailfleet_core.service import Context, main
from mailfleet_core.settings import DnsSettings
from mailfleet_operator.settings import OperatorSettings, check
from mailfleet_operator.shell import types_command
from mailfleet_operator.shell.probing import Ways
from mailfleet_operator.shell.service import Operator


def build(context: Context) -> Operator:
    """The operator as this process runs it. Raises SettingsError."""
    settings = context.settings.section("operator", OperatorSettings)
    check(settings)
    resolver = DnspythonResolver(context.settings.section("dns", DnsSettings), context.clock)
    return Operator(context, settings, resolver, Ways(settings.proxy_users_file))


if __name__ == "__main__":
    if sys.argv[1:2] == ["crds"]:
        types_command.apply(os.environ.get("MAILFLEET_OPERATOR__KUBECONFIG", ""))
    else:
        main("operator", build)
