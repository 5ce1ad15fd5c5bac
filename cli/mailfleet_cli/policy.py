"""`mailfleet policy`: is the traffic policy right, what does it say about a mail, and what do other systems' files say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from mailfleet_cli import output
from mailfleet_cli.main import Invocation
from mailfleet_cli.sources import table_of
from mailfleet_core import settings
from mailfleet_core.dns.port import DnsTemporary
from mailfleet_core.model.site import domain_of, site_name
from mailfleet_core.settings import DnsSettings, EgressSettings, SettingsFile
from mailfleet_router.decisions.shaping.check import ERROR, Finding, Known
from mailfleet_router.decisions.shaping.check import check as check_policy
from mailfleet_router.decisions.shaping.explain import Explained, lines
from mailfleet_router.decisions.shaping.explain import explain as explain_policy
from mailfleet_router.decisions.shaping.import_kumomta import from_kumomta
from mailfleet_router.decisions.shaping.import_powermta import from_powermta
from mailfleet_router.decisions.shaping.imported import Imported
from mailfleet_router.decisions.shaping.limits import Limits, provider_of
from mailfleet_router.decisions.shaping.policy_file import Policy, dump, nearest, read
from mailfleet_router.decisions.shaping.values import Facts, PolicyError
from mailfleet_router.settings import RouterSettings
from mailfleet_router.shell import traffic
from mailfleet_router.shell.policy import policy as routing_policy

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def policy() -> None:
    """The traffic policy: limits, response rules, retry times, warm-up."""


@policy.command()
@click.argument("file", type=FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def check(invocation: Invocation, file: Path | None, as_json: bool) -> None:
    """Look for mistakes in the policy.

    FILE is looked at over the shipped policy; without it, the file that the settings mean. The exit code is 1 when there is
    an error, 0 when there are only warnings.
    """
    known = settings_of(invocation)
    path = file or (traffic.own_file(known) if known else None)
    found = check_policy(load(path), names_of(settings.egress(known)) if known else Known())
    for finding in found:
        _show(finding, as_json)
    if not found and not as_json:
        output.out.print(f"[green]ok[/]   {output.clean(str(path or 'the shipped policy'))}")
    if any(finding.severity == ERROR for finding in found):
        raise SystemExit(1)


def _show(finding: Finding, as_json: bool) -> None:
    if as_json:
        place = finding.place
        output.json(
            {"severity": finding.severity, "file": place.origin, "line": place.line or None, "text": finding.text}
        )
        return
    colour = "bold red" if finding.severity == ERROR else "yellow"
    output.out.print(
        f"{output.clean(str(finding.place))}: [{colour}]{finding.severity}[/]: {output.clean(finding.text)}"
    )


@policy.command()
@click.argument("tenant")
@click.argument("recipient")
@click.option("--source", help="Only this egress source.  [default: all of the pool]")
@click.option("--stream", default="transactional", show_default=True, help="Class of mail.")
@click.option("--pool", default="default", show_default=True, help="Egress pool.")
@click.option(
    "--mx", "mx", multiple=True, metavar="HOST", help="An MX host of the domain; several.  [default: ask the DNS]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each source.")
@click.pass_obj
def explain(
    invocation: Invocation, /, tenant: str, recipient: str, source: str | None, as_json: bool, mx: tuple[str, ...],
    **options: str,
) -> None:  # fmt: skip
    """Say which limits hold for a mail, and why.

    It is mail of TENANT to RECIPIENT, an address or a domain. Each value is told with the line that sets it.
    """
    known = settings_of(invocation)
    file = known or settings.load(None)
    whole = load(traffic.present(traffic.own_file(known)) if known else None)
    egress = settings.egress(file)
    domain = domain_of(recipient.strip().strip("<>"))
    _there("stream", options["stream"], _streams(whole, egress))
    sources = _sources(whole, _egress_sources(file, egress), options["pool"], source)
    hosts, site = _next_hop(file, egress, domain, mx)
    provider = provider_of(whole.traffic.providers, hosts, domain) if not site else ""
    facts = Facts(
        tenant=tenant, stream=options["stream"], pool=options["pool"], site=site or site_name(hosts),
        provider=provider, domain=domain,
    )  # fmt: skip
    limits = Limits(whole.traffic)
    about = [facts._replace(source=name) for name in sources]
    told = [(each, explain_policy(whole, limits, each)) for each in about]
    if as_json:
        for each, explained in told:
            output.json({"facts": each._asdict(), "mx": hosts, "limits": msgspec.to_builtins(explained)})
    else:
        _tell(told, hosts)


def _tell(told: list[tuple[Facts, tuple[Explained, ...]]], hosts: Sequence[str]) -> None:
    """Sources for which the same is said are told of together."""
    together: dict[tuple[str, ...], list[Facts]] = {}
    for facts, explained in told:
        together.setdefault(lines(explained, facts)[1:], []).append(facts)
    output.out.print(f"Mail goes to {output.clean(', '.join(hosts))}.")
    for said, those in together.items():
        every = ", ".join(facts.source for facts in those)
        head = lines((), those[0]._replace(source=every))[0]
        output.out.print(f"[bold]{output.clean(head)}[/]")
        for line in said:
            output.out.print(output.clean(line), style="dim" if line.startswith("      ") else None)


def _next_hop(
    file: SettingsFile, egress: EgressSettings, domain: str, mx: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """The hosts that take mail for `domain`; and the site, where a route of the settings names it."""
    if mx:
        return tuple(host.lower().rstrip(".") for host in mx), ""
    rule = routing_policy(egress, file.section("router", RouterSettings)).rule(domain)
    if rule.site:
        return tuple(host for _, host in rule.route.hosts), rule.site
    return asyncio.run(_ask(file, domain)), ""


async def _ask(file: SettingsFile, domain: str) -> tuple[str, ...]:
    from mailfleet_core.dns.resolver import DnspythonResolver  # a third of a second to load, for this alone

    try:
        answer = await DnspythonResolver(file.section("dns", DnsSettings)).mx(domain)
    except DnsTemporary as error:
        output.fail(
            f"the DNS does not say where mail for {domain} goes ({error}); try again, or name the hosts with --mx"
        )
    if not answer.hosts:
        why = "it says that it takes none (null MX)" if answer.kind == "null" else "there is no such domain in the DNS"
        output.fail(f"no mail goes to {domain}: {why}; look at its spelling, or name the hosts with --mx")
    return tuple(host for _, host in answer.hosts)


Pools = dict[str, tuple[str, ...]]
"""Pool → its sources."""


def _egress_sources(file: SettingsFile, egress: EgressSettings) -> tuple[Pools, list[str]]:
    """Pools and sources, of the settings or of the log."""
    if egress.from_log:
        table = table_of(file)
        return {name: tuple(source for source, _ in each) for name, each in table.pools().items()}, list(table.sources)
    pools = {each.name: tuple(member.source for member in each.sources) for each in egress.pools}
    return pools, [each.name for each in egress.sources]


def _sources(whole: Policy, known: tuple[Pools, list[str]], pool: str, source: str | None) -> tuple[str, ...]:
    pools, names = known
    pools |= {each.name: tuple(member.source for member in each.sources) for each in whole.traffic.pools}
    _there("pool", pool, pools)
    if source is None:
        return pools[pool]
    _there("source", source, names)
    return (source,)


def _streams(whole: Policy, egress: EgressSettings) -> list[str]:
    return [*(stream.name for stream in egress.streams), *(stream.name for stream in whole.traffic.streams)]


def _there(kind: str, name: str, known: Sequence[str] | dict[str, tuple[str, ...]]) -> None:
    if name not in known:
        output.fail(f"there is no {kind} {name!r}{nearest(name, list(known))}")


@policy.command(name="import")
@click.option(
    "--from", "system", type=click.Choice(["kumomta", "powermta"]), required=True, help="Whose files they are."
)
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--output", "target", type=FILE, help="Where to write the policy.  [default: standard output]")
def import_(system: str, files: tuple[Path, ...], target: Path | None) -> None:
    """Make a policy of other systems' files.

    Several FILEs are read in their order, the later ones over the earlier. What has no equivalent here is told on stderr.
    """
    if target and target.exists():
        output.fail(f"{target} exists already; remove it, or give --output another name")
    texts = tuple((str(path), _text(path)) for path in files)
    try:
        found = _imported(system, texts)
        written = dump(found.policy)
        rules = read(written, str(target or "policy")).traffic.rules
        if target:
            target.write_text(written, encoding="utf-8")
    except PolicyError as error:
        output.fail(str(error))
    except OSError as error:
        output.fail(f"{target} cannot be written: {error.strerror}")
    for left in found.left_out:
        output.err.print(f"{output.clean(str(left))}")
    if rules:
        output.err.print("the rules have no class: give each its `class` and `blame`; statistics are kept under them")
    if target:
        output.out.print(f"{output.clean(str(target))} is written; look at it, then: mailfleet policy check {target}")
    else:
        click.echo(written, nl=False)


def _imported(system: str, texts: tuple[tuple[str, str], ...]) -> Imported:
    if system == "kumomta":
        return from_kumomta(texts)
    if len(texts) > 1:
        raise PolicyError("PowerMTA has one configuration file: put what it includes into it, and give that one")
    return from_powermta(*texts[0])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        output.fail(f"{path} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        output.fail(f"{path} is not text in UTF-8; convert it first")


def load(path: Path | None) -> Policy:
    """The policy in a file over the shipped one; a mistake in it ends the command."""
    try:
        return traffic.load(path)
    except PolicyError as error:
        output.fail(str(error))


def settings_of(invocation: Invocation) -> SettingsFile | None:
    """The settings; None: none were named, and there are none where they usually are."""
    return invocation.file() if invocation.given or invocation.path.exists() else None


def names_of(egress: EgressSettings) -> Known:
    """What the policy may name."""
    return Known(
        streams=frozenset(stream.name for stream in egress.streams),
        # Those of the log come and go; a policy may be written before them.
        pools=None if egress.from_log else frozenset(pool.name for pool in egress.pools),
        sources=None if egress.from_log else frozenset(source.name for source in egress.sources),
    )
