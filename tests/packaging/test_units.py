"""The systemd units: what systemd makes of them, and that they agree with what the programs do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from fieldfold.control.protocol import default_socket
from fieldfold.errors import ConfigError, LeaseError
from fieldfold.service import END_WITHIN_S
from node_app.config import NodeConfig

ROOT = Path(__file__).parents[2]
UNITS = {program: ROOT / "packaging" / f"fieldfold-{program}.service" for program in ("node", "aggregator")}
EVERY_UNIT = {**UNITS, "broker": ROOT / "packaging/fieldfold-broker.service"}


def settings(program: str) -> dict[str, str]:
    """Key -> value of the `[Service]` section."""
    _, _, section = EVERY_UNIT[program].read_text(encoding="utf-8").partition("[Service]\n")
    lines = section.partition("[Install]")[0].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_broker_is_started_again_and_writes_in_its_folder_alone() -> None:
    service = settings("broker")
    *_, verb, folder = service["ExecStart"].split()
    assert (verb, service["ReadWritePaths"]) == ("run", folder)
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", str(ConfigError.exit_code))
    assert settings("aggregator")["ExecStart"].endswith(f" --config {folder}/aggregator.toml")


@pytest.mark.parametrize("program", UNITS)
def test_it_starts_a_command_that_there_is(program: str) -> None:
    command = settings(program)["ExecStart"].split()
    assert command[1:4] == [program, "run", "--config"]
    done = subprocess.run(
        [sys.executable, "-m", "fieldfold", *command[1:3], "--help"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_state_folder_is_the_programs_default() -> None:
    defaults = {"node": NodeConfig, "aggregator": AggregatorConfig}
    for program, config in defaults.items():
        given = Path("/var/lib") / settings(program)["StateDirectory"]
        named = config.__struct_fields__[-len(config.__struct_defaults__) :]
        fields = dict(zip(named, config.__struct_defaults__, strict=True))
        assert fields["state_dir"] == str(given)


def test_whoever_is_root_finds_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("node", "aggregator"):
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"/run/{settings(program)['RuntimeDirectory']}")
        assert default_socket("node") == Path("/run/fieldfold/node.sock")


@pytest.mark.parametrize("program", UNITS)
def test_it_is_started_again_unless_somebody_has_to_decide(program: str) -> None:
    service = settings(program)
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    needs_somebody = [ConfigError] if program == "node" else [ConfigError, LeaseError]
    assert service["RestartPreventExitStatus"] == " ".join(str(error.exit_code) for error in needs_somebody)
    assert int(service["TimeoutStopSec"]) > END_WITHIN_S


@pytest.mark.parametrize("program", EVERY_UNIT)
def test_systemd_has_nothing_to_say_against_it(program: str, tmp_path: Path) -> None:
    """Where systemd is at hand; its verdict on a unit is that of every machine."""
    unit = tmp_path / EVERY_UNIT[program].name
    text = EVERY_UNIT[program].read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/fieldfold/bin/fieldfold", sys.executable), encoding="utf-8")
    analyze = shutil.which("systemd-analyze")
    command = [analyze, "verify", "--man=no", str(unit)] if analyze else ["true"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert said == []
