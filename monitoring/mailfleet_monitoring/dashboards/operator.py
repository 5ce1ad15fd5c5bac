"""The operator: who leads, what it decides, what it waits for."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BAD,
    GOOD,
    PER_SECOND,
    SECONDS,
    SHORT,
    WATCH,
    Dashboard,
    N,
    Row,
    Step,
    Variable,
    chart,
    figure,
    quantile,
    rate,
    table,
    total,
)

POOL = "$pool"
_DECISIONS = (
    f'sum by (pool, decision, reason) (increase(mailfleet_operator_decisions_total{{{N}, pool=~"{POOL}"}}[5m]))'
)

OPERATOR = Dashboard(
    "operator",
    "Operator",
    "Who leads, how many lanes pools want and have, why one does not get more, and how the operator itself is.",
    (
        Row(
            "Now",
            (
                figure(
                    "Leading",
                    total("mailfleet_operator_leading", component="operator"),
                    SHORT,
                    "1: one operator acts. Mail goes on without.",
                    Step(0, BAD),
                    Step(1, GOOD),
                    Step(2, BAD),
                ),
                figure(
                    "Age of statistics",
                    total("mailfleet_operator_stats_age_seconds", how="max"),
                    SECONDS,
                    "Of the oldest that decisions rest on.",
                    Step(0, GOOD),
                    Step(60, WATCH),
                    Step(120, BAD),
                ),
                figure("Waiting to be looked at", total("mailfleet_operator_queued"), SHORT, "Resources."),
                table(
                    "Limited",
                    f'max by (pool, reason) (mailfleet_operator_scaling_limited{{{N}, pool=~"{POOL}"}})',
                    ("pool", "reason"),
                    SHORT,
                    "Why a pool gets no more lanes; `kubectl describe senderpool` has the inputs.",
                    width=12,
                    height=4,
                    bare=True,
                ),
            ),
        ),
        Row(
            "Pools",
            (
                chart(
                    "Lanes",
                    {"{{pool}} {{state}}": total("mailfleet_operator_pool_lanes", "pool, state", pool=POOL)},
                    SHORT,
                    "Wanted and ready.",
                ),
                chart(
                    "Sending IPs by state",
                    {"{{state}}": total("mailfleet_operator_sources", "state")},
                    SHORT,
                    "Of all pools and spares.",
                    stacked=True,
                ),
                chart(
                    "Decisions",
                    {
                        "{{pool}} {{decision}} {{reason}}": _DECISIONS,
                    },
                    SHORT,
                    "Within five minutes. One that goes up and down flaps.",
                ),
                table(
                    "Checks that failed",
                    f"min by (source, check) (mailfleet_operator_source_check{{{N}}}) == 0",
                    ("source", "check"),
                    SHORT,
                    "Of SendingIPs: PTR, listings, port 25, plumbed, the address seen outside.",
                    width=12,
                    bare=True,
                ),
                chart(
                    "Waiting mail",
                    {"{{pool}} {{state}}": total("mailfleet_pool_units", "pool, state", pool=POOL)},
                    SHORT,
                    "Units in nobody's hands: what scaling goes by.",
                    width=12,
                ),
            ),
        ),
        Row(
            "The operator itself",
            (
                chart(
                    "Looks at resources",
                    {"{{kind}} {{outcome}}": rate("mailfleet_operator_reconciles_total", "kind, outcome")},
                    PER_SECOND,
                    "Failed ones are tried again, later and later.",
                ),
                chart(
                    "Length of a look, p95",
                    {"{{kind}}": quantile(0.95, "mailfleet_operator_reconcile_seconds", "kind")},
                    SECONDS,
                    "By kind.",
                ),
                chart(
                    "Requests to the API server",
                    {"{{verb}} {{code}}": rate("mailfleet_operator_api_calls_total", "verb, code")},
                    PER_SECOND,
                    "By verb and answer.",
                ),
            ),
        ),
    ),
    (Variable("pool", "mailfleet_pool_units", "pool", "Pool"),),
)
