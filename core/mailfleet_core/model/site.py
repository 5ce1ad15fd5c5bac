"""Sites: the set of MX hosts that domains share, its name, and the queue partition that follows from it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from mailfleet_core.model.shards import MARK, shard_of

PROVIDERS: tuple[tuple[str, str], ...] = (
    (".google.com", "google"),
    (".googlemail.com", "google"),
    (".olc.protection.outlook.com", "microsoft"),
    (".mail.protection.outlook.com", "microsoft365"),
    (".mx.microsoft", "microsoft365"),
    (".yahoodns.net", "yahoo"),
    (".mail.icloud.com", "apple"),
    (".comcast.net", "comcast"),
    (".orange.fr", "orange"),
    (".gmx.net", "united-internet"),
    (".web.de", "united-internet"),
    (".mail.com", "united-internet"),
    (".t-online.de", "t-online"),
    (".free.fr", "free"),
    (".libero.it", "libero"),
    (".kpnmail.nl", "kpn"),
    (".mail.ru", "mail-ru"),
    (".yandex.ru", "yandex"),
    (".yandex.net", "yandex"),
    (".qq.com", "qq"),
    (".netease.com", "netease"),
    (".yahoo.co.jp", "yahoo-japan"),
    (".docomo.ne.jp", "docomo"),
    (".mimecast.com", "mimecast"),
    (".mimecast.co.za", "mimecast"),
    (".mimecast-offshore.com", "mimecast"),
    (".pphosted.com", "proofpoint"),
    (".ppe-hosted.com", "proofpoint"),
    (".barracudanetworks.com", "barracuda"),
    (".zoho.com", "zoho"),
    (".zoho.eu", "zoho"),
    (".zoho.in", "zoho"),
    (".messagingengine.com", "fastmail"),
    (".protonmail.ch", "proton"),
)
"""Suffix of an MX host's name → provider; the longest suffix wins. What a domain's MX says today, seen in public DNS.

The providers of the shipped policy are the same, which a test compares: ingest names sites and does not know the policy."""


def partition_of(site: str, partitions: int) -> int:
    """The queue partition of `site`: fixed for the life of the installation. Shards of one site lie apart, as far as there
    are partitions."""
    shard = shard_of(site) if MARK in site else None
    if shard is None:
        return zlib.crc32(site.encode("utf-8", "surrogateescape")) % partitions
    first = zlib.crc32(shard.site.encode("utf-8", "surrogateescape"))
    return (first + shard.place * max(1, partitions // shard.total)) % partitions


def domain_of(address: str) -> str:
    """The routing domain of an address, lower case."""
    return address.rpartition("@")[2].lower()


def site_name(mx_hosts: Iterable[str]) -> str:
    """The name of the site behind a set of MX hosts: its provider's, else its first host's and how many more there are.

    Independent of order, case and trailing dot.
    """
    hosts = sorted({host.lower().rstrip(".").replace(MARK, "%23") for host in mx_hosts})
    names = {_provider(host) for host in hosts}
    if len(names) == 1 and (name := names.pop()):
        return name
    if len(hosts) == 1:
        return hosts[0]
    return f"{hosts[0]}+{len(hosts) - 1}~{zlib.crc32(' '.join(hosts).encode()):08x}"


def _provider(host: str) -> str:
    found = [(len(suffix), name) for suffix, name in PROVIDERS if host.endswith(suffix)]
    return max(found)[1] if found else ""
