"""`python -m mailfleet_router`: wiring only."""

from __future__ import annotations

from mailfleet_core.dns.resolver import DnspythonResolver
from mailfleet_core.service import Context, Service, main
from mailfleet_core.settings import DnsSettings
from mailfleet_router.shell.service import Router


def build(context: Context) -> Service:
    """The router with the real DNS."""
    return Router(context, DnspythonResolver(context.settings.section("dns", DnsSettings), context.clock))


if __name__ == "__main__":
    main("router", build)
