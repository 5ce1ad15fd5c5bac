"""The story of an installation, told step by step; the witness is what the providers wrote down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.fleet import NAMESPACE, Fleet, Pool, values
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.town import Town

OWN = Pool("own", (1, 2, 3), spares=(7,))
OTHER = Pool("other", (4, 5, 6))
MAILS = 1000


@pytest.fixture(scope="module")
def fleet(
    cluster: Kubectl, product: dict[str, Made], kafka: str, the_town: Town, tmp_path_factory: pytest.TempPathFactory
) -> Fleet:
    """Installed, with two pools of three addresses each."""
    installed = Fleet(cluster, tmp_path_factory.mktemp("fleet"))
    installed.install(values(product, kafka, [OWN, OTHER]))
    return installed


def domains(town: Town) -> list[str]:
    """One of each provider."""
    return [each.receiver.domains[0] for each in town.providers.values()]


def taken(town: Town) -> list[dict[str, Any]]:
    """What all providers took, with the addresses it came from."""
    return [line for each in town.providers.values() for line in each.connections() if line["kind"] == "taken"]


def recipients(lines: list[dict[str, Any]], key: str) -> list[str]:
    """All of them, as often as they occur."""
    return [to for line in lines for to in line[key]]


def test_everything_that_the_chart_installs_becomes_ready(fleet: Fleet) -> None:
    """Each sending IP is looked at and has its sender."""
    kubectl = fleet.kubectl

    def senders() -> bool:
        found = kubectl.get("deployments", "-l", "app.kubernetes.io/component=sender", "-A")["items"]
        return len(found) >= 6 and all(each["status"].get("readyReplicas") for each in found)

    kubectl.wait(senders, "six senders", 240)
    assert kubectl.get("senderpools", namespace=NAMESPACE)["items"]


def test_mail_from_outside_reaches_four_providers_from_the_addresses_of_its_pool(fleet: Fleet, the_town: Town) -> None:
    """Submitted with a password over TLS through the node's port; every mail once, limits kept."""
    password = fleet.add_credential(OWN.name)
    client = fleet.submit(the_town, password, MAILS, "first", domains(the_town))
    assert client.wait(600) == 0, client.tail()
    sent = recipients(fleet.accepted("first"), "rcpts")
    assert len(sent) == MAILS
    until(fleet.kubectl, lambda: len(recipients(taken(the_town), "recipients")) >= MAILS, "the last mail")
    assert sorted(recipients(taken(the_town), "recipients")) == sorted(sent)
    for provider in the_town.providers.values():
        lines = [line for line in provider.connections() if line["kind"] == "taken"]
        assert {line["source"] for line in lines} == OWN.addresses, provider.name
        assert [line for line in provider.connections() if line["kind"] == "violation"] == []


def until(kubectl: Kubectl, holds: Callable[[], object], what: str) -> None:
    """Wait for it as long as mail may take here."""
    kubectl.wait(holds, what, 300)
