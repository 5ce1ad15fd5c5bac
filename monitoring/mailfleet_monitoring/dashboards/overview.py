"""What a postmaster looks at first: is mail taken, does it go, what holds it."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    ALIVE,
    BAD,
    BYTES,
    GOOD,
    OURS,
    PER_SECOND,
    RATIO,
    SECONDS,
    SHORT,
    WATCH,
    WITHOUT_OWNER,
    Dashboard,
    N,
    Row,
    Step,
    chart,
    figure,
    quantile,
    rate,
    table,
    total,
)

OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "Is mail taken, does it go, what holds it.",
    (
        Row(
            "Now",
            (
                figure(
                    "Accepted",
                    rate("mailfleet_recipients_accepted_total"),
                    PER_SECOND,
                    "Recipients of messages that were answered with 250.",
                    decimals=1,
                ),
                figure(
                    "Delivered",
                    rate("mailfleet_recipients_total", verdict="delivered"),
                    PER_SECOND,
                    "Recipients that receivers took.",
                    decimals=1,
                ),
                figure("Queued", total("mailfleet_units_queued"), SHORT, "Units that have no end yet."),
                figure(
                    "Overdue",
                    total("mailfleet_audit_overdue_recipients", how="max"),
                    SHORT,
                    "Accepted recipients beyond their expiry without an end. Anything but 0 is lost track of: "
                    "MailfleetAuditOverdue.",
                    Step(0, GOOD),
                    Step(1, BAD),
                ),
                figure(
                    "Partitions without owner",
                    WITHOUT_OWNER,
                    SHORT,
                    "Mail of these sites stands still. A hand-over takes seconds.",
                    Step(0, GOOD),
                    Step(1, BAD),
                ),
                figure(
                    "Refused by our fault",
                    f"max(namespace:mailfleet_ingest_failures:ratio_rate1h{{{N}}})",
                    RATIO,
                    "Of what clients handed in within the hour; the objective is 0.1 % in 30 days.",
                    Step(0, GOOD),
                    Step(0.001, WATCH),
                    Step(0.0144, BAD),
                    decimals=2,
                ),
            ),
        ),
        Row(
            "Mail",
            (
                chart(
                    "What attempts came to",
                    {"{{verdict}}": rate("mailfleet_recipients_total", "verdict")},
                    PER_SECOND,
                    "Recipients by verdict. Deferred ones are tried again.",
                    width=12,
                    stacked=True,
                ),
                chart(
                    "In and out",
                    {
                        "accepted": rate("mailfleet_recipients_accepted_total"),
                        "delivered": rate("mailfleet_recipients_total", verdict="delivered"),
                    },
                    PER_SECOND,
                    "Accepted above delivered for long: the queue grows.",
                    width=12,
                ),
                chart(
                    "From accepted to delivered, p95",
                    {
                        "{{stream}}": quantile(0.95, "mailfleet_delivery_seconds", "stream"),
                    },
                    SECONDS,
                    "By stream; receivers that defer are in it.",
                    logarithmic=True,
                ),
                chart(
                    "Queue",
                    {
                        "queued": total("mailfleet_units_queued"),
                        "ready": total("mailfleet_units_ready"),
                        "in flight": total("mailfleet_units_in_flight"),
                    },
                    SHORT,
                    "Units. Ready ones wait for a limit or a source, the others for their retry time.",
                ),
                chart(
                    "Oldest ready unit of a pool",
                    {
                        "{{pool}}": total("mailfleet_pool_oldest_ready_seconds", "pool", "max"),
                    },
                    SECONDS,
                    "Grows when a pool's sources may not send what there is: MailfleetPoolExhausted at 15 minutes.",
                    steps=(Step(0, GOOD), Step(900, BAD)),
                ),
            ),
        ),
        Row(
            "What holds mail",
            (
                table(
                    "Held now",
                    f"max by (source, site, state) (mailfleet_troubles{{{N}}})",
                    ("source", "site", "state"),
                    SHORT,
                    "What back-off and reputation hold; `mailfleet site NAME` says why.",
                    width=12,
                    bare=True,
                ),
                chart(
                    "Attempts a second of a pool",
                    {"{{pool}}": total("mailfleet_pool_attempts_per_second", "pool")},
                    PER_SECOND,
                    "Decaying over a minute.",
                    width=12,
                ),
            ),
        ),
        Row(
            "Processes",
            (
                chart(
                    "Processes",
                    {"{{component}}": f"count by (component) (mailfleet_bus_healthy{{{N}, {ALIVE}}})"},
                    SHORT,
                    "That are scraped.",
                ),
                chart(
                    "CPU",
                    {"{{component}}": rate("process_cpu_seconds_total", "component", component=OURS)},
                    SHORT,
                    "Cores.",
                ),
                chart(
                    "Memory",
                    {"{{component}}": total("process_resident_memory_bytes", "component", component=OURS)},
                    BYTES,
                    "Resident.",
                ),
            ),
        ),
    ),
)
