"""The routers: who owns what, and how hard it works."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BYTES,
    PER_SECOND,
    SECONDS,
    SHORT,
    WITHOUT_OWNER,
    Dashboard,
    N,
    Row,
    chart,
    quantiles,
    rate,
    total,
)

_NOT_LIVE = f"sum(mailfleet_router_partitions{{{N}}}) - sum(mailfleet_router_partitions_live{{{N}}})"


def _takeover(share: float) -> str:
    return f"histogram_quantile({share:g}, sum by (le) (rate(mailfleet_router_takeover_seconds_bucket{{{N}}}[1h])))"


ROUTER = Dashboard(
    "router",
    "Router",
    "Who owns which part of the queue, how long hand-overs take, what was told and ignored.",
    (
        Row(
            "Ownership",
            (
                chart(
                    "Partitions that route mail",
                    {"{{pod}}": total("mailfleet_router_partitions_live", "pod")},
                    SHORT,
                    "By router; all of them together are all partitions.",
                    stacked=True,
                ),
                chart(
                    "Without owner",
                    {
                        "partitions": WITHOUT_OWNER,
                        "owned, not live yet": _NOT_LIVE,
                    },
                    SHORT,
                    "A planned hand-over takes up to 5 s, after a crash up to 15 s.",
                ),
                chart(
                    "From assigned to live",
                    {
                        "p50": _takeover(0.5),
                        "p99": _takeover(0.99),
                    },
                    SECONDS,
                    "Take-overs of the last hour.",
                    logarithmic=True,
                ),
                chart(
                    "Records of older epochs",
                    {"{{topic}}": rate("mailfleet_stale_records_total", "topic")},
                    PER_SECOND,
                    "Ignored. Some after a hand-over are usual; a steady flow is two routers that do not let go.",
                ),
                chart(
                    "In doubt",
                    {"units": f"sum(increase(mailfleet_possible_duplicates_total{{{N}}}[1h]))"},
                    SHORT,
                    "Of the last hour: a sender died before its result was durable; these may be delivered twice.",
                ),
                chart(
                    "Reports made",
                    {"{{action}}": rate("mailfleet_dsns_total", "action")},
                    PER_SECOND,
                    "Delivery status notifications to senders of mail.",
                ),
            ),
        ),
        Row(
            "Queue",
            (
                chart(
                    "Queued",
                    {"{{pod}}": total("mailfleet_units_queued", "pod")},
                    SHORT,
                    "Units by router.",
                    stacked=True,
                ),
                chart(
                    "Ready",
                    {"{{pod}}": total("mailfleet_units_ready", "pod")},
                    SHORT,
                    "That only a limit or a source holds.",
                    stacked=True,
                ),
                chart(
                    "In flight",
                    {"{{pod}}": total("mailfleet_units_in_flight", "pod")},
                    SHORT,
                    "In senders' hands.",
                    stacked=True,
                ),
                chart("Sites", {"{{pod}}": total("mailfleet_router_sites", "pod")}, SHORT, "With units."),
                chart(
                    "Recipients by stream",
                    {"{{stream}} {{verdict}}": rate("mailfleet_recipients_total", "stream, verdict")},
                    PER_SECOND,
                    "What attempts and the router decided.",
                ),
                chart(
                    "From accepted to delivered",
                    quantiles("mailfleet_delivery_seconds"),
                    SECONDS,
                    "All streams.",
                    logarithmic=True,
                ),
            ),
        ),
        Row(
            "Audit and processes",
            (
                chart(
                    "Accepted without an end",
                    {"recipients": total("mailfleet_audit_open_recipients", how="max")},
                    SHORT,
                    "As the audit counts them, beside the routers.",
                ),
                chart(
                    "CPU",
                    {"{{pod}}": rate("process_cpu_seconds_total", "pod", component="router")},
                    SHORT,
                    "Cores. A router uses one; near 1 it is time for another.",
                ),
                chart(
                    "Memory",
                    {"{{pod}}": total("process_resident_memory_bytes", "pod", component="router")},
                    BYTES,
                    "Resident.",
                ),
            ),
        ),
    ),
)
