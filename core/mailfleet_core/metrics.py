"""Every metric once: name, kind, unit, meaning. `docs/metrics.md` is generated from this file."""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Counter, Gauge, Histogram


class NotedHistogram(Histogram):
    """A histogram that notes cheaply and is told now and then: `observe` is eight calls and two locks a mail."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._noted = [0] * len(self._upper_bounds)
        self._noted_sum = 0.0

    def note(self, amount: float) -> None:
        """Remember one observation for the next `tell`. From the event loop's thread only."""
        self._noted[bisect_left(self._upper_bounds, amount)] += 1
        self._noted_sum += amount

    def tell(self) -> None:
        """Add what was noted."""
        for bucket, count in enumerate(self._noted):
            if count:
                self._buckets[bucket].inc(count)
        self._sum.inc(self._noted_sum)
        self._noted = [0] * len(self._upper_bounds)
        self._noted_sum = 0.0


LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

# --- ingest
CONNECTIONS = Gauge("mailfleet_ingest_connections", "Client connections open now.", ("listener",))
ACCEPTED_MESSAGES = Counter("mailfleet_messages_accepted_total", "Messages answered with 250.", ("tenant",))
ACCEPTED_RECIPIENTS = Counter("mailfleet_recipients_accepted_total", "Recipients of accepted messages.", ("tenant",))
ACCEPTED_BYTES = Counter("mailfleet_accepted_bytes_total", "Bytes of accepted messages.", ("tenant",))
REJECTIONS = Counter("mailfleet_rejections_total", "Replies of 4yz and 5yz to clients.", ("code", "reason"))
DURABLE_SECONDS = NotedHistogram(
    "mailfleet_ingest_durable_seconds", "From the end of DATA to durable.", buckets=LATENCY_SECONDS
)
AUTH_FAILURES = Counter("mailfleet_auth_failures_total", "AUTH attempts refused.", ("listener",))

# --- router
QUEUED_UNITS = Gauge("mailfleet_units_queued", "Units without a terminal state in the partitions owned here.")
IN_FLIGHT_UNITS = Gauge("mailfleet_units_in_flight", "Units in senders' hands.")
READY_UNITS = Gauge("mailfleet_units_ready", "Units that may go as soon as their site may.")
SITES = Gauge("mailfleet_router_sites", "Sites with units in the partitions owned here.")
SITE_UNITS = Gauge(
    "mailfleet_site_units",
    "Units of the 20 sites with most, by state: ready, in_flight, waiting (deferred, suspended or asked about).",
    ("site", "state"),
)
SITE_FAIRNESS = Gauge(
    "mailfleet_site_fairness",
    "Jain's index of what tenants were served by their weight in the last minute, of a busy site at which several had mail "
    "ready all the time: 1 is a fair share for all, 1/n is all for one of n.",
    ("site",),
)
SITE_RECIPIENTS = Counter(
    "mailfleet_site_recipients_total",
    "Recipients by site and what an attempt there came to. The first 100 busy sites have series, the rest is `(others)`.",
    ("site", "verdict"),
)
SOURCE_RECIPIENTS = Counter(
    "mailfleet_source_recipients_total",
    "Recipients by egress source and what an attempt came to.",
    ("source", "verdict"),
)
REPUTATION_SCORE = Gauge(
    "mailfleet_reputation_score",
    "How a site sees a source, from 0 to 100, as judged last; of the 200 pairs that stand worst.",
    ("source", "site"),
)
REPUTATION_STATE = Gauge(
    "mailfleet_reputation_state",
    "0 good, 1 watch, 2 slow, 3 quarantine; of the same pairs.",
    ("source", "site"),
)
OWNED_PARTITIONS = Gauge("mailfleet_router_partitions", "Queue partitions owned.")
LIVE_PARTITIONS = Gauge("mailfleet_router_partitions_live", "Queue partitions owned that route mail now.")
QUEUE_PARTITIONS = Gauge(
    "mailfleet_queue_partitions", "Queue partitions that there are, as a router sees the log; else 0."
)
TAKEOVER_SECONDS = Histogram("mailfleet_router_takeover_seconds", "From assignment to live.", buckets=LATENCY_SECONDS)
RECIPIENTS = Counter(
    "mailfleet_recipients_total", "Recipients by what an attempt or the router decided.", ("verdict", "stream")
)
IN_DOUBT = Counter("mailfleet_possible_duplicates_total", "Units whose sender died before its result was durable.")
STALE_RECORDS = Counter("mailfleet_stale_records_total", "Records of an older epoch that were ignored.", ("topic",))
DSNS = Counter("mailfleet_dsns_total", "Delivery status notifications made.", ("action",))
DELIVERY_SECONDS = NotedHistogram(
    "mailfleet_delivery_seconds", "From accepted to delivered, per unit.", ("stream",), buckets=LATENCY_SECONDS
)
STATS_SECONDS = Counter(
    "mailfleet_router_stats_seconds_total", "Time spent on telling mail.stats how partitions stand."
)

# --- fleet
POOL_UNITS = Gauge(
    "mailfleet_pool_units",
    "Units of an egress pool that are in nobody's hands (waiting), and of them those that only a limit or a source holds "
    "(ready).",
    ("pool", "state"),
)
POOL_OLDEST_READY = Gauge(
    "mailfleet_pool_oldest_ready_seconds",
    "How long the oldest of the ready units of a pool is ready; else 0.",
    ("pool",),
)
POOL_PER_SECOND = Gauge("mailfleet_pool_attempts_per_second", "Attempts begun, decaying over a minute.", ("pool",))
SOURCE_SCORE = Gauge("mailfleet_source_score", "Reputation of a source over all sites, from 0 to 100.", ("source",))
SOURCE_STATE = Gauge(
    "mailfleet_source_state",
    "The worst that a source is in at any site: 0 good, 1 watch, 2 slow, 3 quarantine.",
    ("source",),
)
SOURCE_IN_FLIGHT = Gauge("mailfleet_source_in_flight", "Units in the hands of a source's senders.", ("source",))
SOURCE_SENT_TODAY = Gauge(
    "mailfleet_source_sent_today", "What counts against the day's cap of a source that warms up.", ("source",)
)
SOURCE_DAY_CAP = Gauge(
    "mailfleet_source_day_cap",
    "What the warm-up of a source allows today; no series: it warms up nowhere.",
    ("source",),
)
TENANT_SCORE = Gauge("mailfleet_tenant_score", "Reputation of a tenant's mail, from 0 to 100.", ("tenant",))
TENANT_COMPLAINTS = Gauge(
    "mailfleet_tenant_complaint_ratio", "Complaints of a tenant's delivered mail, shrunk as in the score.", ("tenant",)
)
TROUBLES = Gauge(
    "mailfleet_troubles",
    "1 for each source at each site that back-off or reputation holds now (paused, slowed, probing, quarantine), the worst "
    "200; an empty source or site is all of them.",
    ("source", "site", "state"),
)
FLEET_PARTITIONS = Gauge(
    "mailfleet_fleet_partitions",
    "Queue partitions that these sums are of. Told by the owner of queue partition 0; else 0.",
)

# --- sender
SENDER_CONNECTIONS = Gauge("mailfleet_sender_connections", "Connections open to receiving servers.", ("source",))
ATTEMPTS = Counter("mailfleet_attempts_total", "Dispatches finished.", ("source", "kind"))
ATTEMPT_SECONDS = NotedHistogram("mailfleet_attempt_seconds", "Length of one attempt.", buckets=LATENCY_SECONDS)
INSIDE_ADDRESSES = Counter(
    "mailfleet_inside_addresses_refused_total", "Connections refused by the inside-address guard."
)
IP_MISMATCHES = Counter(
    "mailfleet_egress_ip_mismatch_total",
    "Looks from outside that saw another address than the source's.",
    ("source", "expected", "seen"),
)
EGRESS_FAILURES = Counter(
    "mailfleet_sender_egress_failures_total",
    "Connections that failed on our own side of the way out: the address is not on the machine, or the proxy fails.",
    ("source", "reason"),
)

# --- operator
OPERATOR_LEADING = Gauge("mailfleet_operator_leading", "1 in the operator that acts, 0 in those that stand by.")
OPERATOR_RECONCILES = Counter(
    "mailfleet_operator_reconciles_total", "Looks at a resource, by how they ended: done, failed.", ("kind", "outcome")
)
OPERATOR_RECONCILE_SECONDS = Histogram(
    "mailfleet_operator_reconcile_seconds", "Length of one look at a resource.", ("kind",), buckets=LATENCY_SECONDS
)
OPERATOR_QUEUED = Gauge("mailfleet_operator_queued", "Resources that wait to be looked at.")
OPERATOR_API_CALLS = Counter("mailfleet_operator_api_calls_total", "Requests to the API server.", ("verb", "code"))
OPERATOR_STATS_AGE = Gauge(
    "mailfleet_operator_stats_age_seconds", "Age of the oldest statistics of a queue partition that decisions rest on."
)
OPERATOR_POOL_LANES = Gauge("mailfleet_operator_pool_lanes", "Lanes of a SenderPool: wanted, ready.", ("pool", "state"))
OPERATOR_SOURCES = Gauge(
    "mailfleet_operator_sources", "SendingIPs of a pool by state; pool is empty for spares.", ("pool", "state")
)
OPERATOR_CHECKS = Gauge(
    "mailfleet_operator_source_check",
    "Checks of a SendingIP: 1 passed, 0 failed; no series while unknown. EgressVerified: the address seen outside is its own.",
    ("source", "check"),
)
OPERATOR_DECISIONS = Counter(
    "mailfleet_operator_decisions_total",
    "Changes of a pool's size and refusals of one, by reason.",
    ("pool", "decision", "reason"),
)
OPERATOR_LIMITED = Gauge(
    "mailfleet_operator_scaling_limited", "1 while a pool gets no more lanes for this reason.", ("pool", "reason")
)

# --- egress proxy
EGRESS_CONNECTIONS = Gauge("mailfleet_egress_connections", "Connections open from a source.", ("source",))
EGRESS_OPENED = Counter("mailfleet_egress_opened_total", "Connections that came about.", ("source",))
EGRESS_BYTES = Counter(
    "mailfleet_egress_bytes_total", "Bytes moved, `out` to destinations or `in` from them.", ("source", "direction")
)
EGRESS_REFUSALS = Counter(
    "mailfleet_egress_refusals_total", "Clients that were refused or ended by the proxy.", ("reason",)
)
EGRESS_CONNECT_FAILURES = Counter(
    "mailfleet_egress_connect_failures_total", "Destinations that could not be connected to.", ("source", "reason")
)
EGRESS_CONNECT_SECONDS = Histogram(
    "mailfleet_egress_connect_seconds", "Until a destination was connected to, or was not.", buckets=LATENCY_SECONDS
)
EGRESS_PLUMBED = Gauge("mailfleet_egress_address_plumbed", "1 while the address is on this machine.", ("source",))

# --- everywhere
AUDIT_OVERDUE = Gauge(
    "mailfleet_audit_overdue_recipients", "Accepted recipients without a terminal state beyond their expiry; must be 0."
)
AUDIT_OPEN = Gauge("mailfleet_audit_open_recipients", "Accepted recipients without a terminal state.")
BUS_IN_FLIGHT = Gauge("mailfleet_bus_in_flight_bytes", "Bytes appended and not acknowledged.")
BUS_HEALTHY = Gauge("mailfleet_bus_healthy", "1 while the log takes records.")
LOG_LAG = Gauge(
    "mailfleet_log_lag",
    "How far this member of the group is behind the ends of the partitions it holds, together: records of Kafka, bytes of "
    "the embedded log. Looked at every 10 seconds.",
    ("group", "topic"),
)
