"""Where clients hand mail in."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BAD,
    BYTES_PER_SECOND,
    GOOD,
    PER_SECOND,
    RATIO,
    SECONDS,
    SHORT,
    WATCH,
    Dashboard,
    N,
    Row,
    Step,
    chart,
    figure,
    quantile,
    quantiles,
    rate,
    total,
)

_WINDOWS = ("5m", "30m", "1h", "6h", "3d")
OBJECTIVE = 0.001
"""The share of messages that may be refused by our fault, in 30 days."""
_WITHIN_A_SECOND = (
    f"{rate('mailfleet_ingest_durable_seconds_bucket', le='1.0')} / {rate('mailfleet_ingest_durable_seconds_count')}"
)

INGEST = Dashboard(
    "ingest",
    "Ingest",
    "What clients hand in, how long their 250 takes, what is refused and by whose fault.",
    (
        Row(
            "Objective: at most 0.1 % refused by our fault in 30 days",
            (
                figure(
                    "Refused in an hour",
                    f"max(namespace:mailfleet_ingest_failures:ratio_rate1h{{{N}}})",
                    RATIO,
                    "Temporary refusals that are ours: the log is away or full, we are overloaded.",
                    Step(0, GOOD),
                    Step(OBJECTIVE, WATCH),
                    Step(0.0144, BAD),
                    decimals=3,
                ),
                figure(
                    "Refused in 3 days",
                    f"max(namespace:mailfleet_ingest_failures:ratio_rate3d{{{N}}})",
                    RATIO,
                    "The same.",
                    Step(0, GOOD),
                    Step(OBJECTIVE, BAD),
                    decimals=3,
                ),
                figure(
                    "250 within a second",
                    _WITHIN_A_SECOND,
                    RATIO,
                    "Of accepted messages, from the end of DATA.",
                    Step(0, BAD),
                    Step(0.99, GOOD),
                    decimals=2,
                ),
                chart(
                    "Burn",
                    {
                        window: f"max(namespace:mailfleet_ingest_failures:ratio_rate{window}{{{N}}}) / {OBJECTIVE}"
                        for window in _WINDOWS
                    },
                    SHORT,
                    "How many times faster than allowed: 14.4 over an hour and 6 over six are alerts.",
                    width=12,
                    height=6,
                    steps=(Step(0, GOOD), Step(1, WATCH), Step(14.4, BAD)),
                ),
            ),
        ),
        Row(
            "Mail",
            (
                chart(
                    "Messages",
                    {"{{tenant}}": rate("mailfleet_messages_accepted_total", "tenant")},
                    PER_SECOND,
                    "Answered with 250, by tenant.",
                    stacked=True,
                ),
                chart(
                    "Bytes",
                    {"{{tenant}}": rate("mailfleet_accepted_bytes_total", "tenant")},
                    BYTES_PER_SECOND,
                    "Of accepted messages.",
                    stacked=True,
                ),
                chart(
                    "Connections",
                    {"{{listener}}": total("mailfleet_ingest_connections", "listener")},
                    SHORT,
                    "Open now, by listener.",
                ),
                chart(
                    "From the end of DATA to durable",
                    quantiles("mailfleet_ingest_durable_seconds"),
                    SECONDS,
                    "What a client waits for its 250.",
                    logarithmic=True,
                ),
                chart(
                    "The same by process, p95",
                    {"{{pod}}": quantile(0.95, "mailfleet_ingest_durable_seconds", "pod")},
                    SECONDS,
                    "One that is slower than the others is short of CPU or far from the log.",
                    logarithmic=True,
                ),
                chart(
                    "Waiting to be durable",
                    {"{{pod}}": total("mailfleet_bus_in_flight_bytes", "pod", component="ingest")},
                    "bytes",
                    "Bytes appended and not acknowledged. At the limit no mail is taken.",
                ),
            ),
        ),
        Row(
            "Refusals",
            (
                chart(
                    "Refused",
                    {"{{code}} {{reason}}": rate("mailfleet_rejections_total", "code, reason")},
                    PER_SECOND,
                    "4yz and 5yz by reason; the text is in `decisions/reply.py`.",
                    width=16,
                ),
                chart(
                    "AUTH refused",
                    {"{{listener}}": rate("mailfleet_auth_failures_total", "listener")},
                    PER_SECOND,
                    "Many: somebody guesses passwords, or a client has an old one.",
                ),
            ),
        ),
    ),
)
