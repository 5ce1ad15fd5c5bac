"""Egress sources: what they send, how they stand, how far they are warmed up; and the tenants whose mail they carry."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BAD,
    BYTES_PER_SECOND,
    GOOD,
    PER_SECOND,
    RATIO,
    SHORT,
    WATCH,
    Dashboard,
    N,
    Row,
    Step,
    Variable,
    chart,
    rate,
    table,
    total,
)

THIS = "$source"
_OUTCOMES = "mailfleet_source_recipients_total"
_DELIVERED_SHARE = (
    f"{rate(_OUTCOMES, 'source', source=THIS, verdict='delivered')} / {rate(_OUTCOMES, 'source', source=THIS)}"
)

SOURCES = Dashboard(
    "sources",
    "Sources and reputation",
    "What each egress source sends, how receivers see it, how far it is warmed up.",
    (
        Row(
            "Reputation",
            (
                chart(
                    "Score",
                    {"{{source}}": total("mailfleet_source_score", "source", "min", source=THIS)},
                    SHORT,
                    "Over all sites, 0 to 100. Below 80 watch, below 60 slow, below 40 quarantine.",
                    width=12,
                    steps=(Step(0, BAD), Step(40, WATCH), Step(80, GOOD)),
                ),
                table(
                    "State",
                    f'max by (source) (mailfleet_source_state{{{N}, source=~"{THIS}"}})',
                    ("source",),
                    SHORT,
                    "The worst at any site.",
                    width=4,
                    words=("good", "watch", "slow", "quarantine"),
                ),
                table(
                    "At sites",
                    f'min by (source, site) (mailfleet_reputation_score{{{N}, source=~"{THIS}"}})',
                    ("source", "site"),
                    SHORT,
                    "The 200 pairs that stand worst in each router.",
                    decimals=0,
                    steps=(Step(0, BAD), Step(40, WATCH), Step(80, GOOD)),
                ),
                table(
                    "Held now",
                    f'max by (source, site, state) (mailfleet_troubles{{{N}, source=~"({THIS}|)"}})',
                    ("source", "site", "state"),
                    SHORT,
                    "What back-off and reputation hold; an empty source is all of them.",
                    width=12,
                    bare=True,
                ),
                chart(
                    "Warm-up",
                    {
                        "{{source}} sent": total("mailfleet_source_sent_today", "source", source=THIS),
                        "{{source}} cap": total("mailfleet_source_day_cap", "source", source=THIS),
                    },
                    SHORT,
                    "What counts against today's cap, and the cap. Only sources that warm up.",
                    width=12,
                ),
            ),
        ),
        Row(
            "Mail",
            (
                chart(
                    "Attempts",
                    {"{{source}}": rate("mailfleet_attempts_total", "source", kind="settled", source=THIS)},
                    PER_SECOND,
                    "Units that were tried, as senders count them.",
                ),
                chart(
                    "What attempts came to",
                    {"{{verdict}}": rate(_OUTCOMES, "verdict", source=THIS)},
                    PER_SECOND,
                    "Recipients by the chosen sources.",
                    stacked=True,
                ),
                chart(
                    "Delivered share",
                    {
                        "{{source}}": _DELIVERED_SHARE,
                    },
                    RATIO,
                    "Of all recipients that were tried.",
                ),
                chart(
                    "Connections",
                    {"{{source}}": total("mailfleet_sender_connections", "source", source=THIS)},
                    SHORT,
                    "Open to receivers.",
                ),
                chart(
                    "In flight",
                    {"{{source}}": total("mailfleet_source_in_flight", "source", source=THIS)},
                    SHORT,
                    "Units in the hands of senders.",
                ),
                chart(
                    "Not attempted, lost",
                    {
                        "{{source}} {{kind}}": rate(
                            "mailfleet_attempts_total", "source, kind", kind="lost|not_attempted", source=THIS
                        ),
                    },
                    PER_SECOND,
                    "Dispatches that senders gave back, and those whose sender died.",
                ),
            ),
        ),
        Row(
            "Tenants",
            (
                chart(
                    "Complaints",
                    {"{{tenant}}": total("mailfleet_tenant_complaint_ratio", "tenant", "max")},
                    RATIO,
                    "Of delivered mail, shrunk as in the score. Gmail and Yahoo want less than 0.3 %.",
                    width=12,
                    steps=(Step(0, GOOD), Step(0.001, WATCH), Step(0.003, BAD)),
                ),
                chart(
                    "Score of tenants",
                    {"{{tenant}}": total("mailfleet_tenant_score", "tenant", "min")},
                    SHORT,
                    "More addresses do not help a tenant whose mail is complained about.",
                    width=12,
                ),
            ),
        ),
        Row(
            "Egress proxy",
            (
                chart(
                    "Connections through proxies",
                    {"{{source}}": total("mailfleet_egress_connections", "source", source=THIS)},
                    SHORT,
                    "Open now.",
                ),
                chart(
                    "Bytes",
                    {"{{direction}}": rate("mailfleet_egress_bytes_total", "direction", source=THIS)},
                    BYTES_PER_SECOND,
                    "Moved for the chosen sources.",
                ),
                chart(
                    "Failures",
                    {
                        "{{reason}}": rate("mailfleet_egress_connect_failures_total", "reason", source=THIS),
                        "refused: {{reason}}": rate("mailfleet_egress_refusals_total", "reason"),
                    },
                    PER_SECOND,
                    "Destinations that could not be connected to; clients that were refused.",
                ),
            ),
        ),
    ),
    (Variable("source", "mailfleet_source_recipients_total", "source", "Source"),),
)
