"""`mailfleet credential`: who may hand in mail with a password."""

from __future__ import annotations

import secrets
from pathlib import Path

import click
from rich.table import Table

from mailfleet_cli import output
from mailfleet_cli.main import Invocation
from mailfleet_core.settings import SettingsFile
from mailfleet_ingest.decisions.credentials import BadCredentials, Credential
from mailfleet_ingest.settings import IngestSettings
from mailfleet_ingest.shell import credential_file

PASSWORD_BYTES = 12


@click.group()
def credential() -> None:
    """Add, list and revoke credentials; a running ingest notices within seconds."""


def path_of(file: SettingsFile) -> Path:
    """The file of credentials that these settings mean."""
    named = file.section("ingest", IngestSettings).credentials_file
    return Path(named) if named else credential_file.default_path(file.origin)


def create(path: Path, wanted: Credential) -> str:
    """Write `wanted` with a fresh password, and return that; it is kept nowhere. Raises BadCredentials, OSError."""
    password = secrets.token_hex(PASSWORD_BYTES)
    credential_file.add(path, wanted, password)
    return password


@credential.command()
@click.argument("name")
@click.option("--tenant", help="Whose mail it is.  [default: NAME]")
@click.option(
    "--domain", "domains", multiple=True, help="A domain it may send from; several; `*.example.org`; `*` for all."
)
@click.option("--network", "networks", multiple=True, help="Where it may be used from; several.  [default: everywhere]")
@click.option("--stream", default="transactional", show_default=True, help="Class of mail.")
@click.option("--pool", default="default", show_default=True, help="Egress pool.")
@click.option("--null-sender", is_flag=True, help="Allow MAIL FROM:<>.")
@click.option("--replace", is_flag=True, help="Put it in place of the one of that name.")
@click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
@click.pass_obj
def add(invocation: Invocation, /, name: str, replace: bool, as_json: bool, **options: object) -> None:
    """Make a credential and print its password, once: only a hash of it is kept."""
    path = path_of(invocation.file())
    if not options["domains"]:
        output.fail("say which domains it may send from: --domain example.org (or --domain '*' for all)")
    options["tenant"] = options["tenant"] or name
    try:
        if not replace and name in credential_file.load(path):
            output.fail(f"there is a credential {name!r} already; --replace puts a new one in its place")
        password = create(path, Credential(name=name, hash="", **options))  # type: ignore[arg-type]
    except BadCredentials as error:
        output.fail(str(error))
    except OSError as error:
        output.fail(f"{path} cannot be written: {error.strerror}")
    if as_json:
        output.json({"name": name, "password": password})
    else:
        output.out.print(f"user {output.clean(name)}  password [bold]{output.clean(password)}[/]")
        output.out.print("The password is shown only now.", style="dim")


@credential.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the credentials, without hashes."""
    known = _load(path_of(invocation.file()))
    if as_json:
        for one in known:
            output.json({field: getattr(one, field) for field in one.__struct_fields__ if field != "hash"})
        return
    table = Table("name", "tenant", "sends from", "used from", "stream", "pool", box=None, header_style="bold")
    for one in known:
        cells = (
            one.name,
            one.tenant,
            " ".join(one.domains),
            " ".join(one.networks) or "everywhere",
            one.stream,
            one.pool,
        )
        table.add_row(*map(output.clean, cells))
    output.out.print(table if known else "There are no credentials; `mailfleet credential add NAME` makes one.")


@credential.command()
@click.argument("name")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> None:
    """Take a credential away; sessions it has open end with their connection."""
    path = path_of(invocation.file())
    try:
        if not credential_file.revoke(path, name):
            known = ", ".join(one.name for one in _load(path))
            output.fail(f"there is no credential {name!r}; there are: {known or 'none'}")
    except BadCredentials as error:
        output.fail(str(error))
    output.out.print(f"{output.clean(name)} is revoked.")


def _load(path: Path) -> list[Credential]:
    try:
        return credential_file.listed(path)
    except BadCredentials as error:
        output.fail(str(error))
