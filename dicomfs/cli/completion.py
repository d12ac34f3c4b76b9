"""``dicomfs completion``: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dicomfs.cli.exit_codes import ExitCode


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    r"""Print the completion script of a shell.

    \b
    bash: dicomfs completion bash > ~/.local/share/bash-completion/completions/dicomfs
    zsh:  dicomfs completion zsh > a folder of $fpath, as _dicomfs
    fish: dicomfs completion fish > ~/.config/fish/completions/dicomfs.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "dicomfs", "_DICOMFS_COMPLETE").source())
    return ExitCode.DONE
