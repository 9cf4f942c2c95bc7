"""A daemon for whoever opens the screens where none runs: it outlives them, as one that a service manager started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import default_socket
from fieldfold.errors import ConfigError, ControlError
from node_app.config import NodeConfig, load

PLACES: Final = (Path("node.toml"), Path("/etc/fieldfold/node.toml"))
"""Where a configuration is looked for that was not named."""
LOG_FILE: Final = "node.log"
ANSWERS_WITHIN_S = 60.0
LOOK_EVERY_S = 0.05


def find(given: Path | None) -> Path | None:
    """The configuration that is meant; None where there is none."""
    return given if given is not None else next((place for place in PLACES if place.is_file()), None)


def socket_of(config_path: Path) -> Path:
    """Where the daemon of a configuration listens.

    Raises:
        ConfigError: when the configuration cannot be used.
    """
    return _socket(load(config_path), config_path)


def start(config_path: Path) -> None:
    """Starts the daemon in a session of its own and waits until it answers.

    What it says goes to node.log in its state_dir; that of the time before is kept beside it.

    Raises:
        ConfigError: when the configuration cannot be used.
        ControlError: with what the daemon said when it ended instead.
    """
    config = load(config_path)
    socket, log = _socket(config, config_path), config_path.resolve().parent / config.state_dir / LOG_FILE
    pid = _launch(config_path, log)
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            raise ControlError(f"the daemon has ended: {_last_line(log)}", f"all it said is in {log}")
        try:
            ControlClient(socket).close()
        except ControlError:
            time.sleep(LOOK_EVERY_S)
        else:
            return
    raise ControlError(f"{socket}: the daemon was started and does not answer", f"look into {log}")


def _launch(config_path: Path, log: Path) -> int:
    """The process, which does not end with ours."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.before"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    except OSError as error:
        raise ConfigError(f"{log}: cannot be written: {error.strerror}", "check state_dir in node.toml") from None
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "fieldfold", "node", "run", "--config", str(config_path)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, to) for source, to in ((nothing, 0), (descriptor, 1), (descriptor, 2))
            ],
            setsid=True,
        )
    finally:
        os.close(descriptor)
        os.close(nothing)


def _socket(config: NodeConfig, config_path: Path) -> Path:
    if config.control_socket:
        return config_path.resolve().parent / config.control_socket
    return default_socket("node")


def _last_line(log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(said) if line.strip()), "without a word")[:500]
