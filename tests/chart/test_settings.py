"""The settings that the chart writes are read by the services' own code."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from mailfleet_cli.check import findings
from mailfleet_core import settings
from mailfleet_core.bus.kafka_topics import settings_of
from mailfleet_core.bus.opening import QUEUE_LIFE_SECONDS
from mailfleet_core.bus.topics import topics
from mailfleet_core.settings import BusSettings, SettingsFile
from mailfleet_ingest.decisions.credentials import parse
from mailfleet_ingest.settings import IngestSettings
from support.helm_chart import named, objects

pytestmark = pytest.mark.cluster


def files(case: str) -> list[SettingsFile]:
    """Every mailfleet.toml of a case."""
    return [
        SettingsFile(tomllib.loads(each["data"]["mailfleet.toml"]), f"{case}: {each['metadata']['name']}", {})
        for each in objects(case)
        if each["kind"] == "ConfigMap" and "mailfleet.toml" in each.get("data", {})
    ]


def main_file(case: str) -> SettingsFile:
    (text,) = {
        each["data"]["mailfleet.toml"]
        for each in objects(case)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "mailfleet-settings"
    }
    return SettingsFile(tomllib.loads(text), case, {})


def test_every_settings_file_is_understood(case: str) -> None:
    for file in files(case):
        first = next(iter(findings(file)))
        assert first.good, first.text
        assert "every section is understood" in first.text


def test_ingest_listens_where_the_services_lead(case: str) -> None:
    listeners = main_file(case).section("ingest", IngestSettings).listeners
    ports = {listener.port for listener in listeners}
    targets = {"submission": 2587, "submissions": 2465, "programs": 2525}
    wanted = {
        targets[port["targetPort"]]
        for each in objects(case)
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
        if port["targetPort"] in targets
    }
    assert ports == wanted == {2587, 2465, 2525}
    assert all(listener.networks for listener in listeners if listener.kind == "trusted")


def test_numbers_lists_and_tables_survive_the_way_into_toml() -> None:
    file = main_file("everything")
    assert file.section("ingest", IngestSettings).max_message_bytes == 10_485_760
    assert settings.egress(file).routes[0].hosts == ("mail.office.example",)
    newsletter = next(stream for stream in settings.egress(file).streams if stream.name == "newsletter")
    assert newsletter.retry_seconds == (600.0, 3600.5)


def test_sasl_reads_its_password_from_a_mounted_secret() -> None:
    bus = main_file("byo-kafka-sasl").section("bus", BusSettings)
    assert (bus.security, bus.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-256")
    assert bus.password_file == "/etc/mailfleet-kafka/password"
    assert bus.ca_file == "/etc/mailfleet-kafka-ca/ca.crt"


def test_credentials_in_values_are_a_file_that_ingest_reads() -> None:
    secret = named("everything", "Secret", "mailfleet-credentials")
    assert set(parse(secret["stringData"]["credentials.toml"])) == {"shop"}


@pytest.mark.parametrize("case", ["strimzi"])
def test_strimzi_makes_the_topics_that_a_start_would_make(case: str) -> None:
    bus = main_file(case).section("bus", BusSettings)
    made = {each["metadata"]["name"]: each["spec"] for each in objects(case) if each["kind"] == "KafkaTopic"}
    wanted = topics(bus.queue_partitions, bus.lanes, QUEUE_LIFE_SECONDS)
    assert set(made) == set(wanted)
    for name, topic in wanted.items():
        assert made[name]["partitions"] == topic.partitions, name
        assert made[name]["config"] == settings_of(topic, made[name]["replicas"]), name


def test_the_senders_template_is_a_pod_template_with_a_container_called_sender() -> None:
    template: dict[str, Any] = yaml.safe_load(named("default", "ConfigMap", "mailfleet-sender")["data"]["sender.yaml"])
    assert [container["name"] for container in template["spec"]["containers"]] == ["sender"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "sender"
