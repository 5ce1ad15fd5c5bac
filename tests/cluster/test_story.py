"""The story of an installation, told step by step; the witness is what the providers wrote down.

Each step goes on where the one before ended, so they run in this order and all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from cluster import books, chaos
from cluster.chaos import DELETE, KILL, Victim
from cluster.fleet import COOL_DOWN, EGRESS_NAMESPACE, NAMESPACE, Fleet, Pool, source_name, values, verdict
from cluster.lab import manifests, places
from cluster.lab.images import Made
from cluster.lab.kubectl import Kubectl
from cluster.lab.lab import Lab
from cluster.lab.names import reverse
from cluster.lab.town import Town, ehlo_name
from exam.judge import Kill
from mailfleet_router.decisions.shaping.warmup import CONSERVATIVE
from support.processes import Process

OWN = Pool("own", (1, 2, 3), spares=(7,))
OTHER = Pool("other", (4, 5, 6), spares=(8,))
TENANTS = {"shop": OWN, "club": OTHER}
SPARE = 7
MAILS = 5000
PER_SECOND = 8.0
"""Of the mail that flows while things happen."""
STRICT = "mimecast"
"""The provider that blocks: its rule pauses a source after three replies, for five minutes at first."""
BLOCKED, POINTLESS, LATER_POINTLESS = 1, 2, 6
"""Numbers of sending IPs: the one that it blocks, and two that lose their PTR."""
PROMPT = 60.0
"""Seconds in which a blocked address has to be left alone."""
RELENT = 420.0
"""Seconds in which it has to be found that a provider has relented: the rest of the pause, and a probe a minute."""
COMPLAINTS = 15
"""About each source of the other pool: beyond the 0.3 % of which providers speak."""
CHAOS_PER_SECOND = 15.0
ALLOWED_PER_KILL = 1.5 * CHAOS_PER_SECOND / 3 * 0.3 + 2
"""As `exam.ledger` counts: what one of three senders has under way while a provider takes 0.3 s on average."""
LABEL = "app.kubernetes.io/component="
INGEST = Victim("ingest", NAMESPACE, f"{LABEL}ingest")
ROUTER = Victim("router", NAMESPACE, f"{LABEL}router")
OPERATOR = Victim("operator", NAMESPACE, f"{LABEL}operator")
SENDER = Victim("sender", EGRESS_NAMESPACE, f"mailfleet.dev/source={source_name(3)}")
SENDERS = Victim("sender", EGRESS_NAMESPACE, f"{LABEL}sender")
LOG = Victim("log", manifests.KAFKA_NAMESPACE, "app=kafka")


@pytest.fixture(scope="module")
def fleet(
    cluster: Kubectl, product: dict[str, Made], kafka: str, the_town: Town, tmp_path_factory: pytest.TempPathFactory
) -> Fleet:
    """Installed, with two pools of three addresses each, and a tenant for each."""
    installed = Fleet(cluster, tmp_path_factory.mktemp("fleet"))
    installed.install(values(product, kafka, [OWN, OTHER]))
    for name, pool in TENANTS.items():
        installed.add_tenant(name, pool.name)
    return installed


@pytest.fixture(scope="module")
def steady(fleet: Fleet, the_town: Town) -> Iterator[Process]:
    """Mail of the first pool that flows until somebody stops it."""
    client = fleet.submit(the_town, "shop", "steady", 100_000, PER_SECOND)
    yield client
    client.kill()


def until(fleet: Fleet, holds: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Wait for it."""
    fleet.kubectl.wait(holds, what, seconds)


def await_senders(fleet: Fleet, pool: Pool) -> None:
    """Wait until all senders of a pool are ready."""
    until(fleet, lambda: verdict(fleet.pool(pool), "Ready")[:2] == ("True", "AllReady"), f"the senders of {pool.name}")


def await_all(fleet: Fleet, town: Town, mark: str) -> None:
    """Wait until all mail that was accepted has arrived."""
    until(fleet, lambda: not books.missing(fleet, town, mark), f"the last mail of {mark}", 600)


# --- it works --------------------------------------------------------------------------------------------------------------
def test_everything_that_the_chart_installs_becomes_ready(fleet: Fleet) -> None:
    """Each sending IP is looked at and has its sender; the spares wait."""
    for pool in TENANTS.values():
        await_senders(fleet, pool)
        assert fleet.pool(pool)["senderSummary"] == "3/3"
        assert {verdict(fleet.address(number), "Ready")[1] for number in pool.sources} == {"Active"}
        assert {verdict(fleet.address(number), "Ready")[1] for number in pool.spares} == {"Spare"}


def test_mail_from_outside_reaches_four_providers_from_the_addresses_of_its_pool(fleet: Fleet, the_town: Town) -> None:
    """Submitted with a password over TLS through the node's port; every mail once, limits kept."""
    clients = [fleet.submit(the_town, tenant, f"first-{tenant}-", MAILS // 2, 100.0) for tenant in TENANTS]
    for client in clients:
        assert client.wait(600) == 0, client.tail()
    for tenant, pool in TENANTS.items():
        mark = f"first-{tenant}-"
        assert len({name for name, _ in books.accepted(fleet, mark)}) == MAILS // 2, clients[0].tail()
        await_all(fleet, the_town, mark)
        for name in the_town.providers:
            assert {line["source"] for line in books.of(the_town, name, "taken", mark=mark)} == pool.addresses
        assert books.judged(fleet, the_town, mark).faults() == []
    assert books.violations(the_town) == []


# --- a provider blocks an address ----------------------------------------------------------------------------------------
def test_a_provider_that_blocks_an_address_gets_no_more_mail_from_it(
    fleet: Fleet, the_town: Town, steady: Process
) -> None:
    """421 twice, then 550: within a minute nothing goes from there to it; the SendingIP says why; others go on."""
    provider, address = the_town.providers[STRICT], places.source(BLOCKED)
    until(fleet, lambda: books.of(the_town, STRICT, "taken", address, "steady"), "mail from the address")
    provider.order(blocked={address: 2})

    def replies() -> list[dict[str, object]]:
        return [line for line in books.of(the_town, STRICT, "mail", address) if line["block"]]

    until(fleet, lambda: len(replies()) > 2, "the third reply")
    since = float(str(replies()[0]["at"]))
    until(fleet, lambda: held_by(fleet, BLOCKED, STRICT) == "paused", "the block in the SendingIP", PROMPT)
    told = next(site for site in fleet.address(BLOCKED)["sites"] if site["site"] == STRICT)
    assert "Local CT IP Reputation" in told["reply"], told
    assert told["rule"] == "mimecast-reputation"
    time.sleep(max(0.0, since + 2 * PROMPT - time.time()))
    mails = [line for line in books.of(the_town, STRICT, "mail") if line["at"] > since + PROMPT]
    assert {line["source"] for line in mails} >= OWN.addresses - {address}
    assert address not in {line["source"] for line in mails}
    elsewhere = [name for name in the_town.providers if name != STRICT]
    assert all(
        any(line["at"] > since + PROMPT for line in books.of(the_town, name, "taken", address)) for name in elsewhere
    )


def test_a_spare_takes_its_place_and_warms_up_under_its_cap(fleet: Fleet, the_town: Town, steady: Process) -> None:
    """It passed preflight before; the decision is told with its reason."""
    until(fleet, lambda: fleet.address(SPARE).get("state") == "Warming", "the spare", 60)
    taken = fleet.pool(OWN)["spares"]
    assert [each["name"] for each in taken] == [source_name(SPARE)]
    assert STRICT in taken[0]["reason"], taken
    assert "SpareTaken" in fleet.reasons("SenderPool", OWN.name)
    assert verdict(fleet.address(SPARE), "PTRVerified")[0] == "True"
    until(fleet, lambda: all(books.of(the_town, name, "taken", places.source(SPARE)) for name in the_town.providers),
          "mail from the spare", 120)  # fmt: skip
    assert fleet.address(SPARE)["warmupPlan"] == CONSERVATIVE.name


def test_a_provider_that_relents_is_probed_and_gets_mail_from_the_address_again(
    fleet: Fleet, the_town: Town, steady: Process
) -> None:
    """One message as a probe, then slowly more; no mail was bounced for the block."""
    address = places.source(BLOCKED)
    the_town.providers[STRICT].order()
    relented = time.time()

    def again() -> bool:
        return any(line["at"] > relented for line in books.of(the_town, STRICT, "taken", address))

    until(fleet, again, "mail from the address that was blocked", RELENT)
    told = [line["text"] for line in fleet.events("shaping") if line.get("source") == source_name(BLOCKED)]
    assert any("prob" in text for text in told), told
    until(fleet, lambda: held_by(fleet, BLOCKED, STRICT) in ("", "slowed"), "the end of the pause", 90)
    assert fleet.address(BLOCKED)["state"] == "Active"
    assert fleet.events("bounced", "expired") == []


# --- an address loses its PTR --------------------------------------------------------------------------------------------
def test_an_address_that_loses_its_ptr_is_drained_and_reported(fleet: Fleet, the_town: Town, steady: Process) -> None:
    """Nothing leaves from it until the PTR is back."""
    address = places.source(POINTLESS)
    lose_ptr(fleet, the_town, POINTLESS)
    assert "NoPTR" in fleet.reasons("SendingIP", source_name(POINTLESS))
    assert fleet.pool(OWN)["sourceSummary"] == "3/4"
    time.sleep(10)
    since = time.time()
    time.sleep(20)
    mails = [line for name in the_town.providers for line in books.of(the_town, name, "mail") if line["at"] > since]
    assert mails
    assert address not in {line["source"] for line in mails}
    the_town.names.point_back(address, ehlo_name(POINTLESS))
    the_town.names.publish()
    until(fleet, lambda: fleet.address(POINTLESS)["state"] == "Active", "its return", COOL_DOWN + 60)


def test_all_that_mail_arrived_once_and_the_spare_kept_to_its_cap(
    fleet: Fleet, the_town: Town, steady: Process
) -> None:
    """The ledger of the time in which a provider blocked and an address was drained."""
    assert steady.stop() == 0, steady.tail()
    await_all(fleet, the_town, "steady")
    assert books.judged(fleet, the_town, "steady").faults() == []
    assert books.violations(the_town) == []
    for name in the_town.providers:
        lines = books.of(the_town, name, "mail", places.source(SPARE))
        an_hour = Counter(line["at"] // 3600 for line in lines)
        assert max(an_hour.values()) <= CONSERVATIVE.for_provider(name).hour_cap(0), (name, an_hour)


# --- an upgrade ----------------------------------------------------------------------------------------------------------
def test_an_upgrade_under_load_loses_nothing_and_repeats_nothing(
    fleet: Fleet, the_town: Town, product: dict[str, Made], kafka: str
) -> None:
    """Settings that changed make every pod anew: no mail is twice, and no client has to wonder."""
    victims = (INGEST, ROUTER, OPERATOR, SENDERS)
    old = {name for victim in victims for name in chaos.containers(fleet.kubectl, victim)}
    client = fleet.submit(the_town, "shop", "upgrade", 100_000, CHAOS_PER_SECOND)
    fleet.install(values(product, kafka, [OWN, OTHER], logs={"level": "warning"}))

    def anew() -> bool:
        now = {name for victim in victims for name in chaos.containers(fleet.kubectl, victim)}
        return len(now) == len(old) and not now & old

    until(fleet, anew, "new pods")
    time.sleep(5)
    assert client.stop() == 0, client.tail()
    await_all(fleet, the_town, "upgrade")
    assert books.judged(fleet, the_town, "upgrade").faults() == []
    doubts = [line for line in fleet.handed_in("upgrade") if line["outcome"] == "indoubt"]
    assert [line for line in doubts if "Cancelled" not in line["text"]] == []
    assert books.violations(the_town) == []


# --- a tenant's mail is the trouble --------------------------------------------------------------------------------------
def test_complaints_about_a_tenant_stop_the_growth_of_its_pool(fleet: Fleet, the_town: Town) -> None:
    """A spare is there, a source is missing, and the operator says why it takes none: it names the tenant."""
    ids = {line["rcpt"]: line["mailfleet"] for line in books.mails(the_town, "first-club-")}
    about = []
    for number in OTHER.sources:
        lines = books.of(the_town, "yahoo", "taken", places.source(number), "first-club-")
        about += [(ids[to], to) for line in lines for to in line["recipients"]][:COMPLAINTS]
    assert {each["result"] for each in fleet.complain(about)} == {"counted"}

    def refused() -> bool:
        status, reason, message = verdict(fleet.pool(OTHER), "ScalingLimited")
        return (status, reason) == ("True", "Reputation") and "complaints" in message and "tenant club" in message

    until(fleet, refused, "the refusal", 120)
    lose_ptr(fleet, the_town, LATER_POINTLESS)
    time.sleep(3 * COOL_DOWN)
    assert refused(), fleet.pool(OTHER)
    assert not fleet.pool(OTHER).get("spares")
    assert verdict(fleet.address(OTHER.spares[0]), "Ready")[1] == "Spare"
    assert verdict(fleet.pool(OWN), "ScalingLimited")[1] != "Reputation"


# --- everything dies once ------------------------------------------------------------------------------------------------
def test_every_kind_of_pod_dies_and_no_mail_is_lost(fleet: Fleet, the_town: Town, own_lab: Lab) -> None:
    """kill -9 of the process, and deletion without grace, of each; mail flows all the while."""
    client = fleet.submit(the_town, "shop", "chaos", 100_000, CHAOS_PER_SECOND)
    kills: list[Kill] = []
    for how in (KILL, DELETE):
        for victim in (SENDER, ROUTER, INGEST, OPERATOR, LOG):
            before, began = chaos.pods(fleet.kubectl, victim), time.monotonic()
            kills.append(chaos.end(own_lab, fleet.kubectl, victim, how))
            chaos.await_back(fleet.kubectl, victim, before)
            print(f"{how} {kills[-1].name}: back after {time.monotonic() - began:.0f} s")
            time.sleep(5)
    assert client.stop() == 0, client.tail()
    await_all(fleet, the_town, "chaos")
    found = books.judged(fleet, the_town, "chaos", kills, ALLOWED_PER_KILL)
    print(f"{found.accepted} accepted, {len(found.duplicates)} copies, {found.client_copies} by the client")
    assert found.accepted > 1000
    assert found.faults() == []
    assert books.violations(the_town) == []


def held_by(fleet: Fleet, number: int, site: str) -> str:
    """What a site holds against an address, as its SendingIP has it; empty: nothing."""
    return next((each["state"] for each in fleet.address(number).get("sites", ()) if each["site"] == site), "")


def lose_ptr(fleet: Fleet, town: Town, number: int) -> None:
    """Returns when it is drained for that."""
    del town.names.records[reverse(places.source(number))]
    town.names.publish()
    until(fleet, lambda: fleet.address(number)["state"] == "Draining", "the drain", 90)
    assert verdict(fleet.address(number), "PTRVerified")[:2] == ("False", "NoPTR")
