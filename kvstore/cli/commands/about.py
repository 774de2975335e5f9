"""`version` and `completion`: about the command itself."""

from __future__ import annotations

import click

from kvstore import __version__
from kvstore.cli.exits import BAD_FEATURE, CliError, bad_args
from kvstore.serving.versions import PROTOCOL_VERSION

__all__ = ("completion", "version")

_SHELLS = ("bash", "zsh", "fish")


@click.command()
def version() -> None:
    """Print the version of this command and that of the protocol."""
    click.echo(f"kvstore version: {__version__}")
    click.echo(f"API version: {PROTOCOL_VERSION.rpartition('.')[0]}")


@click.command()
@click.argument("shell", required=False, metavar="[bash|zsh|fish]")
def completion(shell: str | None) -> None:
    """Print the completion script of a shell.

    \b
    bash:  source <(kvstore completion bash)
    zsh:   source <(kvstore completion zsh)
    fish:  kvstore completion fish | source
    """
    from click.shell_completion import get_completion_class

    from kvstore.cli.exits import guarded
    from kvstore.cli.main import cli

    with guarded():
        if shell is None:
            raise bad_args(f"completion needs the name of a shell: {', '.join(_SHELLS)}")
        maker = get_completion_class(shell)
        if maker is None:
            raise CliError(f"no completion for {shell!r}: use {', '.join(_SHELLS)}", BAD_FEATURE)
        try:
            click.echo(maker(cli, {}, "kvstore", "_KVSTORE_COMPLETE").source())
        except RuntimeError as error:
            raise CliError(str(error)) from None
