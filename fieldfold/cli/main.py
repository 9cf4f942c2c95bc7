"""`fieldfold`: finds the command groups of whoever is installed and reports every error on one line."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any

import click

from fieldfold.errors import FieldfoldError

ENTRY_POINTS = "fieldfold.commands"


class LazyGroups(click.Group):
    """Subcommands are entry points; a group's module is imported when it is called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of all groups installed here."""
        return sorted(entry.name for entry in entry_points(group=ENTRY_POINTS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports the group called `cmd_name`."""
        for entry in entry_points(group=ENTRY_POINTS, name=cmd_name):
            command: click.Command = entry.load()
            return command
        return None


HELP = """Federated learning over the MQTT broker a plant already runs.

\b
fieldfold broker init DIR --host NAME        certificates and configuration for a broker
fieldfold broker run DIR                     start it
fieldfold broker invite press-07             a code with which a gateway joins
fieldfold aggregator run --config FILE       the service beside the broker
fieldfold task publish X.bundle              give the fleet something to learn
fieldfold node enroll CODE                   join, with a key that is made on the gateway
fieldfold node run --config FILE             the daemon on every gateway
fieldfold node                               its screens, for whoever operates it
fieldfold node status                        how it is doing, for scripts too
"""


@click.group(
    cls=LazyGroups, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="fieldfold")
def fieldfold() -> None:
    """The command; see HELP."""


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command; a mistake of the user's is one line on stderr and a non-zero exit, never a traceback."""
    try:
        return fieldfold.main(args=arguments, prog_name="fieldfold", standalone_mode=True)
    except FieldfoldError as error:
        sys.stderr.write(f"fieldfold: {error}\n")
        sys.exit(error.exit_code)
