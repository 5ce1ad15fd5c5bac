"""`python -m mailfleet_operator crds`: makes the cluster's resource types those of this version."""

from __future__ import annotations

import asyncio
import sys

from mailfleet_operator.shell.cluster import TYPE, Cluster, Refused
from mailfleet_operator.shell.files import resource_types

ESTABLISHED_SECONDS = 30.0


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
        names = [(await cluster.apply(body))["metadata"]["name"] for body in resource_types()]
        for name in names:
            await _established(cluster, name)
        return names
    finally:
        await cluster.close()


async def _established(cluster: Cluster, name: str) -> None:
    """Wait until the API server serves a type: what comes next may be a resource of it. Raises TimeoutError."""
    async with asyncio.timeout(ESTABLISHED_SECONDS):
        while True:
            body = await cluster.get(TYPE, name, "") or {}
            conditions = (body.get("status") or {}).get("conditions") or []
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return
            await asyncio.sleep(0.2)
