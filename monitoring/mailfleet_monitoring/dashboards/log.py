"""The log, as its users see it: how far each group is behind, and whether it takes records."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BAD,
    BYTES,
    GOOD,
    SECONDS,
    SHORT,
    Dashboard,
    N,
    Row,
    Step,
    chart,
    figure,
    quantiles,
    total,
)

_CLIENTS = 'component=~"ingest|router|sender"'

LOG = Dashboard(
    "log",
    "Kafka lag",
    "How far each group is behind the log, and whether the log takes records. Of the brokers, Kafka's own exporter tells.",
    (
        Row(
            "Lag",
            (
                chart(
                    "Lag of groups",
                    {"{{group}} {{topic}}": total("mailfleet_log_lag", "group, topic")},
                    SHORT,
                    "Records of Kafka (bytes of the embedded log) that are not dealt with. senders: in flight counts too.",
                    width=12,
                ),
                chart(
                    "By process",
                    {"{{pod}} {{topic}}": total("mailfleet_log_lag", "pod, topic")},
                    SHORT,
                    "One that is far behind the others is slow or stuck.",
                    width=12,
                ),
            ),
        ),
        Row(
            "Writing",
            (
                figure(
                    "Processes that cannot write",
                    f"count(mailfleet_bus_healthy{{{N}, {_CLIENTS}}} == 0) or vector(0)",
                    SHORT,
                    "The log is away or full for them: MailfleetLogUnavailable.",
                    Step(0, GOOD),
                    Step(1, BAD),
                    height=8,
                ),
                chart(
                    "Healthy",
                    {"{{pod}}": f"min by (pod) (mailfleet_bus_healthy{{{N}, {_CLIENTS}}})"},
                    SHORT,
                    "1 while the log takes records.",
                    width=10,
                ),
                chart(
                    "Not acknowledged",
                    {
                        "{{component}}": total(
                            "mailfleet_bus_in_flight_bytes", "component", component="ingest|router|sender"
                        )
                    },
                    BYTES,
                    "Bytes appended.",
                    width=10,
                ),
                chart(
                    "From the end of DATA to durable",
                    quantiles("mailfleet_ingest_durable_seconds"),
                    SECONDS,
                    "Two writes of the log, as clients see them.",
                    width=12,
                    logarithmic=True,
                ),
                chart(
                    "Partitions heard of",
                    {
                        "queue partitions": f"max(mailfleet_queue_partitions{{{N}}})",
                        "in the sums of the fleet": f"max(mailfleet_fleet_partitions{{{N}}})",
                    },
                    SHORT,
                    "The second below the first: statistics of some partitions are old.",
                    width=12,
                ),
            ),
        ),
    ),
)
