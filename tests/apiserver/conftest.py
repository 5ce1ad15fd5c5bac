"""A real API server for all tests of this folder, with our resource types; a namespace and operators for each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mailfleet_operator.shell import types_command
from support.control_plane import ControlPlane
from support.operators import Fleet, Kubernetes

FOLDER = Path(__file__).parent
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These need what is built from source; `make test-apiserver` runs them."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The control plane, with our resource types."""
    with ControlPlane() as made:
        types_command.apply(str(made.kubeconfig))
        yield made


@pytest.fixture
def kubernetes(plane: ControlPlane) -> Kubernetes:
    """A namespace of its own."""
    made = Kubernetes(plane, f"mail-{next(_numbers)}")
    made.create("Namespace", made.namespace)
    return made


@pytest.fixture
async def fleet(kubernetes: Kubernetes, tmp_path: Path) -> AsyncIterator[Fleet]:
    """No operator yet."""
    made = Fleet(kubernetes, tmp_path)
    yield made
    await made.stop()
