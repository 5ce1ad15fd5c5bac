"""`mailfleet completion`: how to switch on completion in the shell."""

from __future__ import annotations

import os

import click

LINES = {
    "bash": ("~/.bashrc", 'eval "$(_MAILFLEET_COMPLETE=bash_source mailfleet)"'),
    "zsh": ("~/.zshrc", 'eval "$(_MAILFLEET_COMPLETE=zsh_source mailfleet)"'),
    "fish": ("~/.config/fish/completions/mailfleet.fish", "_MAILFLEET_COMPLETE=fish_source mailfleet | source"),
}


@click.command()
@click.argument("shell", type=click.Choice(list(LINES)), required=False)
def completion(shell: str | None) -> None:
    """Print the line that switches on completion in SHELL (default: the one you are in)."""
    shell = shell or os.path.basename(os.environ.get("SHELL", "bash"))
    file, line = LINES.get(shell, LINES["bash"])
    click.echo(f"# add to {file}\n{line}")
