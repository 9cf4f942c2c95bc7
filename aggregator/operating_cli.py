"""`fieldfold aggregator pause` and the other commands to a running aggregator, which notes who asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fieldfold.cli.figures import plain
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket

F = TypeVar("F", bound=Callable[..., Any])
OPERATIONS_SHOWN: Final = 20


def _socket(command: F) -> F:
    return click.option("--socket", type=click.Path(path_type=Path), help="control socket of the running aggregator")(
        command
    )


def _ask(socket: Path | None, name: str, **arguments: Any) -> None:
    with ControlClient(socket or running_socket("aggregator")) as client:
        sys.stdout.write(f"{client.command(name, **arguments)}\n")


@click.command()
@click.argument("node", default="")
@_socket
def pause(node: str, socket: Path | None) -> None:
    """Hold the model where it is: updates are taken and wait. With NODE, have that node hold its training."""
    _ask(socket, "pause", **({"node": node} if node else {}))


@click.command()
@click.argument("node", default="")
@_socket
def resume(node: str, socket: Path | None) -> None:
    """Go on, with the updates that waited. With NODE, have that node go on."""
    _ask(socket, "resume", **({"node": node} if node else {}))


@click.command()
@_socket
def release(socket: Path | None) -> None:
    """While the model is held: fold what waits, once, and hold it there."""
    _ask(socket, "release")


@click.command("roll-back")
@click.argument("version", type=click.IntRange(min=0))
@_socket
def roll_back(version: int, socket: Path | None) -> None:
    """Release the parameters of an older VERSION as the next one; nothing counts that was learned in between.

    Every gateway follows it as it follows any version.
    """
    _ask(socket, "roll_back", version=version)


@click.command()
@click.argument("node")
@_socket
def exclude(node: str, socket: Path | None) -> None:
    """Take none of NODE's updates from now on. What was folded stays; `refold` makes a model without it."""
    _ask(socket, "exclude", node=node)


@click.command()
@click.argument("node")
@_socket
def readmit(node: str, socket: Path | None) -> None:
    """Take NODE's updates again."""
    _ask(socket, "readmit", node=node)


@click.command()
@_socket
def operations(socket: Path | None) -> None:
    """Say what people asked for: when, who, and what came of it; the newest last."""
    with ControlClient(socket or running_socket("aggregator")) as client:
        found = client.view("operations")[:OPERATIONS_SHOWN]
    for each in reversed(found):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["at"]))
        sys.stdout.write(f"{at}  {plain(each['who']):<12} {plain(each['command']):<12} {plain(each['result'])}\n")


COMMANDS: Final = (pause, resume, release, roll_back, exclude, readmit, operations)
