"""What systemd sees of an aggregator: when it is up, that it lives, and that it ends when it is asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.identities import broker_table

PATIENCE_S = 60.0


def test_it_says_when_it_is_up_lives_and_ends_with_0(tmp_path: Path) -> None:
    config, address = tmp_path / "aggregator.toml", tmp_path / "notify"
    config.write_text(
        'federation = "plant"\nstate_dir = "state"\ncontrol_socket = "a.sock"\n[broker]\n'
        + broker_table("aggregator")
    )
    environment = {**os.environ, "NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-m", "fieldfold", "aggregator", "run", "--config", str(config)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(address))
        heard.settimeout(PATIENCE_S)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as aggregator:
            words = [heard.recv(100) for _ in range(3)]
            assert words == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            aggregator.send_signal(signal.SIGTERM)
            assert aggregator.wait(PATIENCE_S) == 0
        while (word := heard.recv(100)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1"
