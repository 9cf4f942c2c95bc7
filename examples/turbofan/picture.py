"""A picture of the terminal app at a running gateway, as SVG: python -m examples.turbofan.picture OUT.svg.

Broker, aggregator and three gateways run as processes; the app is attached to one of them as an operator attaches it:
to a gateway, or with --fleet to the aggregator.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from aggregator.tui.app import FleetApp
from aggregator.tui.frame import ROOMS as FLEET_ROOMS
from examples.turbofan.demo import BUNDLE
from examples.turbofan.fleet import Fleet
from fieldfold.errors import FieldfoldError
from fieldfold.terminal import themes
from fieldfold.terminal.app import Guest
from node_app.tui.app import NodeApp
from node_app.tui.frame import ROOMS

RUN_FOLDER = Path("picture-run")
NODE = "press-07"
ENGINES = {"press-07": (3, 5, 8, 13), "press-09": (21, 34, 55, 89), "oven-02": (1, 4, 9, 16)}
STEPS_PER_S = {"press-07": 12.0, "press-09": 20.0, "oven-02": 4.0}
VERSIONS = 40
LONGEST_S = 120.0
SEEN_FOR_S = 12.0
"""The processor's load is said over ten seconds."""
FONT_FROM_ELSEWHERE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""A picture fetches nothing; whoever looks at it has a font of equal widths."""


def main(arguments: list[str] | None = None) -> int:
    """Draws the picture; a fleet that does not learn is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m examples.turbofan.picture", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where the SVG is written")
    parser.add_argument("--fleet", action="store_true", help="the fleet's screens, not a gateway's")
    parser.add_argument("--screen", choices=[*ROOMS, *FLEET_ROOMS], help="the first one without this")
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--theme", choices=["dark", "light", "16"], default="dark")
    asked = parser.parse_args(arguments)
    try:
        with Fleet(RUN_FOLDER, BUNDLE, ENGINES, STEPS_PER_S) as fleet:
            _learn(fleet)
            app = FleetApp(fleet.socket("aggregator")) if asked.fleet else NodeApp(fleet.socket(NODE))
            app.theme = themes.NAMES[asked.theme]
            where = "broker" if asked.fleet else NODE
            drawn = asyncio.run(_drawn(app, asked.screen, (asked.columns, asked.rows), f"ssh {where}"))
            asked.out.write_text(drawn, encoding="utf-8")
    except FieldfoldError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    finally:
        shutil.rmtree(RUN_FOLDER, ignore_errors=True)
    return 0


def _learn(fleet: Fleet) -> None:
    fleet.start_broker()
    fleet.start_aggregator()
    for name in fleet.engines:
        fleet.start_node(name)
    deadline = time.monotonic() + LONGEST_S
    while ((fleet.aggregator_status() or {}).get("version") or 0) < VERSIONS:
        fleet.check_alive()
        if time.monotonic() > deadline:
            raise FieldfoldError(f"there was no version {VERSIONS} in {LONGEST_S:.0f} s", "is the machine very busy?")
        time.sleep(0.5)


async def _drawn(app: Guest[Any], room: str | None, size: tuple[int, int], title: str) -> str:
    async with app.run_test(size=size) as pilot:
        if room is not None:
            app.action_go(room)
        await pilot.pause(SEEN_FOR_S)
        return FONT_FROM_ELSEWHERE.sub("", app.export_screenshot(title=title))


if __name__ == "__main__":
    sys.exit(main())
