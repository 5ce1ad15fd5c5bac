"""Grafana dashboards as Python, written to the chart as JSON; and a page that draws them without Grafana."""
