"""The dashboards that the chart ships."""

from mailfleet_monitoring.dashboards.ingest import INGEST
from mailfleet_monitoring.dashboards.log import LOG
from mailfleet_monitoring.dashboards.operator import OPERATOR
from mailfleet_monitoring.dashboards.overview import OVERVIEW
from mailfleet_monitoring.dashboards.router import ROUTER
from mailfleet_monitoring.dashboards.sites import SITES
from mailfleet_monitoring.dashboards.sources import SOURCES

DASHBOARDS = (OVERVIEW, SITES, SOURCES, INGEST, ROUTER, LOG, OPERATOR)
