"""Where everything of the lab is: its directory, its addresses, its names. All of it lies in network namespaces of its own."""

from __future__ import annotations

import os
from pathlib import Path

HOME = Path(os.environ.get("MAILFLEET_LAB", "/var/tmp/mailfleet-lab"))
"""On a real disk: containers' file systems lie in it."""

PREFIX = "mfc-"
"""Of every network namespace."""
CONTROL_GROUP = "mailfleet-lab"
"""Pods run below it in every cgroup hierarchy."""

NETWORK = 16
"""Length of the prefix: one network in which the node, the providers and the outside meet."""
WORLD = f"10.88.0.0/{NETWORK}"
NODE = "10.88.0.1"
ROUTER = "10.88.0.254"
"""Where what leads nowhere is sent; nobody is there."""
NAMESERVER = "10.88.0.53"
OUTSIDE = "10.88.20.1"
"""A client that submits mail."""

PODS = "10.89.0.0/24"
SERVICES = "10.96.0.0/16"
CLUSTER_NAMESERVER = "10.96.0.10"
API = f"https://{NODE}:6443"
NODE_NAME = "node"


def source(number: int) -> str:
    """The address of a sending IP of the node, numbered from 1."""
    return f"10.88.2.{number}"


def provider(number: int, host: int = 1) -> str:
    """The address of an MX host of a provider; both numbered from 1."""
    return f"10.88.{10 + number}.{host}"
