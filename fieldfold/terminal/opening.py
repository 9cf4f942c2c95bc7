"""How a program's command opens its screens: the options, and one line where they cannot be opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldfold.control.client import ControlClient
from fieldfold.errors import ConfigError
from fieldfold.terminal.glyphs import Glyphs, suited
from fieldfold.terminal.multiplexer import has_mouse

F = TypeVar("F", bound=Callable[..., Any])


def options(command: F) -> F:
    """Those of every command that opens screens."""
    for option in (
        click.option("--glyphs", type=click.Choice(["braille", "block", "ascii"]), help="what curves are drawn with"),
        click.option(
            "--theme", type=click.Choice(["dark", "light", "16"]), help="colours; 16 are the terminal's own"
        ),
        click.option("--read-only", is_flag=True, help="look only: the daemon refuses this connection every command"),
    ):
        command = option(command)
    return command


def show(  # noqa: PLR0913 - what is shown, where, and three choices
    load: Callable[[], type[Any]],
    socket: Path,
    for_scripts: str,
    *,
    theme: str | None,
    glyphs: Glyphs | None,
    read_only: bool,
) -> None:
    """Shows the screens until somebody leaves them; later the daemon may come and go.

    Args:
        load: imports the app; textual need not be there.
        socket: of the daemon, which must answer now.
        for_scripts: the command that says the same without screens.
        theme: None for what suits the terminal; so `glyphs`.
        glyphs: what curves are drawn with.
        read_only: gives up commands, at the daemon.

    Raises:
        ControlError: when no daemon answers.
        ConfigError: without a terminal, or without textual.
    """
    with ControlClient(socket) as client:
        client.attach(read_only=True)
    require_terminal(for_scripts)
    app = loaded(load, for_scripts)
    from fieldfold.terminal import themes  # noqa: PLC0415 - as load

    app(
        socket,
        read_only=read_only,
        theme=theme or themes.suited(os.environ),
        glyphs=glyphs or suited(os.environ, sys.stdout.encoding),
    ).run(mouse=has_mouse(os.environ))


def require_terminal(for_scripts: str) -> None:
    """Refuses a pipe, unless textual was told to drive something else, such as a browser.

    Raises:
        ConfigError: when there is no terminal.
    """
    if not os.environ.get("TEXTUAL_DRIVER") and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("the screens need a terminal", f"in a script: {for_scripts.partition(' --')[0]} --json")


def loaded(load: Callable[[], type[Any]], for_scripts: str) -> type[Any]:
    """The app.

    Raises:
        ConfigError: when textual is not there.
    """
    try:
        return load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise ConfigError(
            "the screens need the package textual", f"pip install 'fieldfold[tui]', or: {for_scripts}"
        ) from None
