"""`python -m mailfleet_operator crds`: makes the cluster's resource types those of this version."""

from __future__ import annotations

import asyncio
import sys

from mailfleet_operator.shell.cluster import Cluster, Refused
from mailfleet_operator.shell.files import resource_types


def apply(kubeconfig: str) -> None:
    """Apply all of them. Exits with a message when the apiserver refuses."""
    try:
        for name in asyncio.run(_apply(kubeconfig)):
            print(f"{name} applied")
    except Refused as error:
        sys.exit(f"mailfleet operator: {error}")


async def _apply(kubeconfig: str) -> list[str]:
    cluster = Cluster(kubeconfig, "default", lambda: True)
    try:
        return [(await cluster.apply(body))["metadata"]["name"] for body in resource_types()]
    finally:
        await cluster.close()
