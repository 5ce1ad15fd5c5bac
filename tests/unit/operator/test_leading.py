"""A candidate and its Lease: what it asks the API server for, and when it may act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mailfleet_core.clock import SystemClock
from mailfleet_operator.decisions.election import Terms
from mailfleet_operator.shell.cluster import Cluster, Object
from mailfleet_operator.shell.leading import Leading

TERMS = Terms(lease=15.0, renew=10.0, retry=2.0)


class Leases:
    """The API server as far as one Lease goes."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.asked: list[str] = []
        self.down = False

    async def get(self, kind: str, name: str, namespace: str) -> Object | None:
        self._ask("get")
        return self.lease

    async def create_lease(self, name: str, namespace: str, spec: Mapping[str, Any]) -> Object | None:
        self._ask("create")
        return self.write("1", spec)

    async def replace_lease(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> Object | None:
        self._ask("replace")
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        same = lease["metadata"]["resourceVersion"] == version
        return self.write(str(int(version) + 1), spec) if same else None

    def write(self, version: str, spec: Mapping[str, Any]) -> Object:
        about = {"name": "operator", "namespace": "mail", "resourceVersion": version}
        self.lease = {"metadata": about, "spec": dict(spec)}
        return self.lease

    def _ask(self, verb: str) -> None:
        if self.down:
            raise TimeoutError
        self.asked.append(verb)


class HandClock(SystemClock):
    """Goes when the test says."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class Candidate:
    """Looks at the lease when the test says."""

    def __init__(self, leases: Leases, name: str = "a") -> None:
        self.leases, self.clock = leases, HandClock()
        self.leading = Leading(self.clock, "operator", "mail", name, TERMS)

    async def look(self, seconds: float = 2.0) -> list[str]:
        """After so many seconds; what it asked for."""
        self.clock.seconds += seconds
        self.leases.asked.clear()
        await self.leading._step(cast(Cluster, self.leases))
        return list(self.leases.asked)


async def test_a_leader_renews_its_lease_without_reading_it() -> None:
    one = Candidate(Leases())
    assert await one.look() == ["get", "create"]
    for _ in range(10):
        assert await one.look() == ["replace"]
        assert one.leading.leads()


async def test_a_leader_whose_lease_was_taken_finds_out_with_its_next_renewal() -> None:
    leases = Leases()
    one = Candidate(leases)
    await one.look()
    leases.write("7", {"holderIdentity": "b"})
    assert await one.look() == ["replace", "get"]
    assert not one.leading.leads()
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == "b"


async def test_a_leader_that_does_not_know_whether_its_renewal_was_written_reads_before_it_writes_again() -> None:
    leases = Leases()
    one = Candidate(leases)
    await one.look()
    leases.down = True
    await one.look()
    assert one.leading.leads()
    leases.down = False
    assert await one.look() == ["get", "replace"]
    leases.down = True
    await one.look(9.9)
    assert one.leading.leads()
    await one.look(0.2)
    assert not one.leading.leads()
