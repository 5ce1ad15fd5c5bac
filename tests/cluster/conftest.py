"""A cluster for the tests of this folder: the one that KUBECONFIG names, or one that is brought up here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster.lab import images, manifests, remains, town
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.lab import Lab, lab
from cluster.lab.places import HOME
from cluster.lab.town import Town
from support.needs import leave_out

VOLUMES = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a cluster, and time."""
    for item in items:
        if "/tests/cluster/" in str(item.path):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def own_lab() -> Iterator[Lab]:
    """A bare Kubernetes on this machine; when it is down, nothing of it may be left."""
    if os.environ.get("KUBECONFIG"):
        leave_out("needs network namespaces on the node: run it without KUBECONFIG")
    with lab() as made:
        print("bring-up:", ", ".join(f"{step} after {seconds:.0f} s" for step, seconds in made.took.items()))
        yield made
    assert remains.leftovers() == []


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Kubectl:
    """A cluster with DNS and volumes."""
    if configuration := os.environ.get("KUBECONFIG"):
        return Kubectl(configuration)
    here: Lab = request.getfixturevalue("own_lab")
    dns = images.coredns()
    here.load(dns.archive)
    here.kubectl.apply(*manifests.cluster_dns(dns.name), *manifests.volumes(HOME / "volumes", VOLUMES))
    here.kubectl.rolled_out("deployment/coredns", "kube-system")
    return here.kubectl


@pytest.fixture(scope="session")
def product(cluster: Kubectl, request: pytest.FixtureRequest) -> dict[str, Made]:
    """The images of this checkout, known to the node."""
    if os.environ.get("KUBECONFIG"):
        leave_out("the images of this checkout are not in that cluster")
    made = images.product()
    for each in made.values():
        request.getfixturevalue("own_lab").load(each.archive)
    return made


@pytest.fixture(scope="session")
def kafka(cluster: Kubectl, own_lab: Lab) -> str:
    """A broker in the cluster: its bootstrap address for pods."""
    made = images.kafka()
    own_lab.load(made.archive)
    cluster.apply(*manifests.kafka(made.name))
    cluster.rolled_out("statefulset/kafka", manifests.KAFKA_NAMESPACE)
    return manifests.BOOTSTRAP


@pytest.fixture(scope="session")
def the_town(own_lab: Lab) -> Town:
    """Providers and the DNS of the mail world."""
    return town.build(own_lab)
