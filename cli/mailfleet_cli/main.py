"""`mailfleet`: one command, its subcommands, its errors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click
from click.shell_completion import CompletionItem

from mailfleet_cli import output
from mailfleet_core import settings
from mailfleet_core.bus.port import BusUnavailable, UnsafeDurability
from mailfleet_core.settings import SettingsError, SettingsFile

DEFAULT_FILE = Path("var/mailfleet.toml")


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the options before the subcommand say."""

    path: Path
    given: bool
    """Was --config (or MAILFLEET_CONFIG) given?"""

    def file(self) -> SettingsFile:
        """The settings. Raises SettingsError, and says how to get some when there are none."""
        if not self.given and not self.path.exists():
            output.fail(
                f"there is no {self.path} here. `mailfleet run` makes one on its first start; "
                "or name a settings file: mailfleet --config FILE …"
            )
        return settings.load(self.path)


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called, so that `--help` and completion stay quick."""

    COMMANDS: ClassVar = {
        "run": ("run", "Start everything on this machine."),
        "send": ("send", "Submit a mail and print its message id."),
        "trace": ("trace", "Tell the story of a mail."),
        "why": ("why", "Say why a mail waits, and until when."),
        "queues": ("queues", "Show the sites that have mail waiting."),
        "site": ("site", "Show one site: its queue, limits and last replies."),
        "top": ("top", "Show the fleet at a glance, again and again."),
        "inbox": ("inbox", "Show the mails in the sink."),
        "suspend": ("commanding", "Hold mail: of a tenant, a domain, a site, a campaign, …"),
        "resume": ("commanding", "Take a command back."),
        "bounce": ("commanding", "End mail that waits."),
        "reroute": ("commanding", "Send mail by another egress pool."),
        "retry": ("commanding", "Try deferred mail now."),
        "commands": ("commanding", "Show the commands that are in force."),
        "sources": ("sources", "Show the egress sources."),
        "source": ("sources", "Make, drain and remove an egress source."),
        "feedback": ("feedback", "Count complaints of recipients."),
        "credential": ("credential", "Add, list and revoke credentials."),
        "topics": ("topics", "Make the topics of the log, and check them."),
        "config": ("check", "Look at the settings."),
        "policy": ("policy", "Check, explain and import the traffic policy."),
        "whatif": ("whatif", "Replay what happened against another policy."),
        "events": ("events", "Print what was recorded, for keeping and for `whatif`."),
        "completion": ("completion", "Switch on completion in your shell."),
    }
    """Name → module, and what it does in a few words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(self.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now."""
        if cmd_name not in self.COMMANDS:
            return None
        module = __import__(f"mailfleet_cli.{self.COMMANDS[cmd_name][0]}", fromlist=[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, without importing any of them, and the options."""
        names = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in self.COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), envvar="MAILFLEET_CONFIG",
              help=f"The settings file.  [default: {DEFAULT_FILE}]")  # fmt: skip
@click.version_option(package_name="mailfleet-cli", prog_name="mailfleet")
@click.pass_context
def mailfleet(ctx: click.Context, config: Path | None) -> None:
    """Mailfleet: outbound mail that survives its own crashes."""
    ctx.obj = Invocation(config or DEFAULT_FILE, config is not None)


def main() -> None:
    """The entry point: errors of the settings and of the log are sentences, not tracebacks."""
    try:
        mailfleet.main(prog_name="mailfleet", standalone_mode=True)
    except (SettingsError, UnsafeDurability) as error:
        stop(str(error))
    except BusUnavailable as error:
        stop(f"the log does not answer: {error}. Is `mailfleet run` (or Kafka) running, and is [bus] right?")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def stop(text: str) -> None:
    """Print `text` as an error and exit with 1."""
    output.Failure(text).show()
    sys.exit(1)
