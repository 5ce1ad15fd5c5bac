"""`mailfleet send`: hand a mail to Mailfleet by SMTP, as any client does."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from functools import partial
from typing import IO

import click

from mailfleet_cli import ending, output, reading
from mailfleet_cli.listening import entrance
from mailfleet_cli.main import Invocation
from mailfleet_core.model.wire import Event

LINE_END = re.compile(rb"\r\n|\r|\n")
"""Files on this system have their own; on the wire there is one."""
MESSAGE_ID = ending.MESSAGE_ID


@click.command()
@click.argument("message", type=click.File("rb"), required=False)
@click.option("--to", "recipients", multiple=True, required=True, help="A recipient; may be given several times.")
@click.option(
    "--from", "reverse_path", default="postmaster@localhost.localdomain", show_default=True, help="Who sends."
)
@click.option("--subject", default="A first mail", show_default=True, help="Without MESSAGE: its subject.")
@click.option("--text", default="Hello from Mailfleet.", show_default=True, help="Without MESSAGE: its text.")
@click.option("--server", metavar="HOST:PORT", help="Where to submit; default: the trusted listener of the settings.")
@click.option("--user", help="Credential; then STARTTLS is used.")
@click.option("--password", envvar="MAILFLEET_PASSWORD", help="Its password; better given in MAILFLEET_PASSWORD.")
@click.option("--wait", "wait_seconds", type=float, metavar="SECONDS",
              help="Wait so long for the mail to be delivered or otherwise ended; exit code 1 when it is not.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
@click.pass_obj
def send(  # noqa: PLR0913 (click gives one argument an option)
    invocation: Invocation, message: IO[bytes] | None, recipients: tuple[str, ...], reverse_path: str, subject: str,
    text: str, server: str | None, user: str | None, password: str | None, wait_seconds: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Submit a mail and print its message id. MESSAGE is a file with header and body; `-` reads standard input."""
    where = server or entrance(invocation.file(), with_login=bool(user))
    content = LINE_END.sub(b"\r\n", message.read() if message else compose(reverse_path, recipients, subject, text))
    hand_in = partial(submit, where, (user, password or ""), reverse_path, list(recipients), content)
    if wait_seconds is not None:
        reply, story = reading.run(ending.of(invocation.file(), hand_in, len(recipients), wait_seconds))
    else:
        reply, story = hand_in(), []
    _tell(reply, recipients, story, as_json)


def _tell(reply: str, recipients: tuple[str, ...], story: list[Event], as_json: bool) -> None:
    found = MESSAGE_ID.search(reply)
    if as_json:
        ended = {"ended": sorted({event.kind for event in story})} if story else {}
        output.json({"message_id": found[0] if found else "", "reply": reply, "recipients": recipients, **ended})
    else:
        output.out.print(f"accepted: {output.clean(found[0] if found else reply)}")
        for event in story:
            addresses = ", ".join(address for _, address in event.recipients)
            output.out.print(output.clean(f"{event.kind}: {addresses} {event.text}".rstrip()))
        output.out.print(f"its story: mailfleet trace {found[0] if found else recipients[0]}", style="dim")


def compose(reverse_path: str, recipients: tuple[str, ...], subject: str, text: str) -> bytes:
    """A small plain message; Message-ID and Date are left to Mailfleet."""
    message = EmailMessage()
    message["From"] = reverse_path
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message.set_content(text)
    return message.as_bytes()


def submit(where: str, login: tuple[str | None, str], reverse_path: str, recipients: list[str], content: bytes) -> str:
    """One SMTP transaction; the reply to its content. Stops with a sentence when it fails."""
    host, _, port = where.rpartition(":")
    try:
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=60) as client:
            if login[0]:
                client.starttls(context=_any_certificate())
                client.login(login[0], login[1])
            return _transaction(client, reverse_path, recipients, content)
    except ConnectionRefusedError:
        output.fail(
            f"nobody listens on {where}; start Mailfleet with `mailfleet run`, or name another one with --server"
        )
    except smtplib.SMTPAuthenticationError as error:
        output.fail(
            f"{where} refuses the credential: {_text(error.smtp_code, error.smtp_error)}; `mailfleet credential list`"
        )
    except (OSError, smtplib.SMTPException) as error:
        output.fail(f"{where} did not take the mail: {error}")


def _transaction(client: smtplib.SMTP, reverse_path: str, recipients: list[str], content: bytes) -> str:
    client.ehlo_or_helo_if_needed()
    _expect(client.mail(reverse_path))
    for recipient in recipients:
        _expect(client.rcpt(recipient))
    code, text = client.data(content)
    return _expect((code, text))


def _expect(answer: tuple[int, bytes]) -> str:
    if answer[0] // 100 != 2:
        output.fail(f"Mailfleet refuses the mail: {_text(*answer)}")
    return answer[1].decode("utf-8", "replace")


def _text(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


def _any_certificate() -> ssl.SSLContext:
    # The first start's certificate is self-signed and the way is the loopback; a client elsewhere should verify.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
