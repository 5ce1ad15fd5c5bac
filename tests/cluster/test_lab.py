"""The lab itself: what every other test of this folder stands on."""

from __future__ import annotations

import sys
import time

import pytest

from cluster import pods
from cluster.lab import mailbox, places
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.lab import Lab
from cluster.lab.town import Town

KNOCK = """
import smtplib, sys
source, host = sys.argv[1:]
with smtplib.SMTP(host, 25, source_address=(source, 0), timeout=10) as client:
    print(*client.ehlo())
"""
HAND_IN = """
import smtplib, sys
source, host, recipient = sys.argv[1:]
with smtplib.SMTP(host, 25, source_address=(source, 0), timeout=30) as client:
    client.sendmail("a@shop.test", [recipient], "Subject: to a mailbox\\r\\n\\r\\nHello.")
"""
SETTINGS = """
[bus]
kind = "kafka"
bootstrap = "{bootstrap}"
"""


def test_the_node_is_ready_and_resolves_names_of_services(own_lab: Lab, cluster: Kubectl) -> None:
    """Kubernetes is the version that we name, and its DNS runs."""
    assert own_lab.ready()
    version = cluster.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"]
    assert version.startswith("v1.34.")


def test_our_image_runs_under_the_restricted_standard(cluster: Kubectl, product: dict[str, Made]) -> None:
    """As nobody in particular, on a root file system that it cannot write to."""
    phase, said = pods.run(cluster, "help", product["mailfleet"].name, "-m", "mailfleet_cli", "--help")
    assert phase == "Succeeded", said
    assert "outbound mail that survives its own crashes" in said


def test_a_pod_makes_the_topics_in_kafka(cluster: Kubectl, product: dict[str, Made], kafka: str) -> None:
    """Through the service's name: DNS, service address, broker."""
    files = {"mailfleet.toml": SETTINGS.format(bootstrap=kafka)}
    command = ("-m", "mailfleet_cli", "--config", "/etc/mailfleet/mailfleet.toml", "topics")
    phase, said = pods.run(cluster, "topics", product["mailfleet"].name, *command, files=files)
    assert phase == "Succeeded", said


@pytest.mark.parametrize("name", ["google", "microsoft", "yahoo", "mimecast"])
def test_a_provider_sees_the_address_that_a_pod_chose(
    name: str, cluster: Kubectl, product: dict[str, Made], the_town: Town
) -> None:
    """A pod in the node's network binds an address of the node, and that is what the other end writes down."""
    provider = the_town.providers[name]
    chosen = places.source(2)
    image = product["mailfleet"].name
    phase, said = pods.run(
        cluster, f"knock-{name}", image, "-c", KNOCK, chosen, provider.receiver.hosts[0],
        hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet",
    )  # fmt: skip
    assert phase == "Succeeded", said
    seen = {line["source"] for line in provider.connections() if line["kind"] == "connect"}
    assert seen == {chosen}


def test_the_mailbox_server_keeps_what_it_takes(own_lab: Lab) -> None:
    """From the node's network to an inbox."""
    box = mailbox.build(own_lab)
    recipient = f"somebody@{mailbox.DOMAIN}"
    own_lab.space.run(sys.executable, "-c", HAND_IN, places.source(1), mailbox.ADDRESS, recipient)
    deadline = time.monotonic() + 60
    while not (kept := box.messages()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [mail["Subject"] for mail in kept] == ["to a mailbox"]
