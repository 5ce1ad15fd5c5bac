"""`[router]`: how this service behaves. Sources, pools, routes and streams have tables of their own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mailfleet_core.settings import Section


class RouterSettings(Section, frozen=True):
    """`[router]`: queues, limits, retries and reports."""

    hostname: Annotated[str, msgspec.Meta(description="Our name in delivery reports; empty: this machine's.")] = ""
    policy_file: Annotated[
        str,
        msgspec.Meta(
            description="The own traffic policy (docs/policy.md), over the shipped one; empty: `policy.yaml` beside the "
            "settings file, if there is one. Routers obey an edited file within seconds, also one that comes later into a "
            "directory that is there; one that is wrong changes nothing."
        ),
    ] = ""
    recipients_per_unit: Annotated[
        int, msgspec.Meta(description="At most so many recipients in one transaction.", ge=1)
    ] = 100
    in_flight_report_seconds: Annotated[
        float,
        msgspec.Meta(description="A unit that a sender keeps longer is reported as held (and still never sent twice)."),
    ] = 900.0
    held_report_seconds: Annotated[
        float, msgspec.Meta(description="A unit that waits for a limit longer than this is reported as held.")
    ] = 30.0
    recent_units: Annotated[
        int,
        msgspec.Meta(description="Ended units remembered per partition, so that a repeated record changes nothing."),
    ] = 50_000
    memory_units: Annotated[
        int,
        msgspec.Meta(
            description="About so many queued units are kept in memory (some 800 bytes each); more wait in a local store, "
            "which is a cache of the log and is thrown away at every start.",
            ge=100,
        ),
    ] = 250_000
    spill_directory: Annotated[
        str,
        msgspec.Meta(
            description="Where that store has its files, which have no name; on a disk, not in memory. It takes some "
            "600 bytes a unit."
        ),
    ] = "/var/tmp"
    dns_questions: Annotated[int, msgspec.Meta(description="Domains looked up at once.", ge=1)] = 200
    audit: Annotated[
        bool, msgspec.Meta(description="The owner of partition 0 counts what was accepted against what ended.")
    ] = True
    audit_grace_seconds: Annotated[
        float, msgspec.Meta(description="Overdue is what has no end so long after its expiry.")
    ] = 900.0
