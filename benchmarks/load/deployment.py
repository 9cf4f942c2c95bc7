"""Flower in deployment mode, as its documentation has it: SuperLink, SuperNodes, and an app that is submitted.

Installed once into a virtual environment below .cache/, so that nothing of it comes into ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from examples.turbofan.fleet import free_port
from fieldfold.errors import FieldfoldError

FLOWER = "flwr==1.41.*"
ENVIRONMENT = Path(".cache/flower/venv")
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
LOOK_EVERY_S = 0.05

CONNECTION = """\
[superlink]
default = "beside"
[superlink.beside]
address = "127.0.0.1:{port}"
{security}
"""


def install(*requirements: str) -> None:
    """Flower and what its apps need, where they are not there yet.

    Raises:
        FieldfoldError: when they cannot be had.
    """
    done = ENVIRONMENT / "installed"
    wanted = "\n".join((FLOWER, *requirements))
    if done.exists() and set(wanted.splitlines()) <= set(done.read_text(encoding="utf-8").splitlines()):
        return
    if not ENVIRONMENT.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    command = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", *wanted.splitlines()]
    if subprocess.run(command, check=False).returncode:
        raise FieldfoldError(f"{FLOWER} does not install into {ENVIRONMENT}", "look whether a package index is there")
    done.write_text(wanted, encoding="utf-8")


class Tls:
    """The authority's certificate and the server's own; nodes show none, as is usual with Flower."""

    def __init__(self, broker_folder: Path) -> None:
        self.ca = broker_folder / "ca" / "ca.crt"
        self.certificate = broker_folder / "server" / "server.crt"
        self.key = broker_folder / "server" / "server.key"

    def of_link(self) -> tuple[str, ...]:
        """What SuperLink is told."""
        files = (("ca-certfile", self.ca), ("certfile", self.certificate), ("keyfile", self.key))
        return tuple(word for name, file in files for word in (f"--ssl-{name}", str(file)))


class Deployment:
    """Its programs in `folder`, which is emptied first; use as a context manager.

    Args:
        tls: None is without.
        environment: further variables of all programs.
    """

    def __init__(self, folder: Path, tls: Tls | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self._tls, self._environment = folder.resolve(), tls, dict(environment or {})
        self.port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "home").mkdir(parents=True)
        security = f'root-certificates = "{self._tls.ca}"' if self._tls else "insecure = true"
        text = CONNECTION.format(port=self.port, security=security)
        (self.folder / "home" / "config.toml").write_text(text, encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        _, alive = psutil.wait_procs(self._seen, timeout=END_TIMEOUT_S)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self._processes.values():
            process.wait()

    def start_link(self, *options: str) -> None:
        """SuperLink; returns when it listens.

        Raises:
            FieldfoldError: when it does not come up.
        """
        security = self._tls.of_link() if self._tls else ("--insecure",)
        port = ("--port", str(self.port), "--disable-runtime-dependency-installation")
        said = self.log("superlink").lower().count("running on")
        self._spawn("superlink", "flower-superlink", *security, *port, *options)
        self._wait("superlink", "running on", said)

    def start_node(self, name: str, *options: str, port: int | None = None) -> None:
        """A SuperNode; `port` is that of a relay on the way to SuperLink."""
        security = ("--root-certificates", str(self._tls.ca)) if self._tls else ("--insecure",)
        link = ("--superlink", f"127.0.0.1:{port or self.port}", "--port", str(free_port()))
        self._spawn(name, "flower-supernode", *security, *link, *options)

    def wait_for_node(self, name: str, times: int = 0) -> None:
        """Until it has registered with SuperLink, once more than `times`.

        Raises:
            FieldfoldError: when it does not.
        """
        self._wait(name, "supernode id", times)

    def submit(self, app: Path, settings: Mapping[str, str | float] | None = None) -> None:
        """Hands in a run of the app.

        Raises:
            FieldfoldError: when SuperLink does not take it.
        """
        options = [f"{key}={_toml(value)}" for key, value in (settings or {}).items()]
        command = ["flwr", "run", str(app), "beside", *(("--run-config", " ".join(options)) if options else ())]
        self._spawn("run", *command)
        if self._processes["run"].wait(START_TIMEOUT_S):
            raise FieldfoldError(f"Flower took no run: {self.log('run').strip()[-500:]}")

    def ask(self, *arguments: str) -> str:
        """What the command `flwr` prints."""
        done = subprocess.run(
            [str(self._bin / "flwr"), *arguments], env=self._variables(), capture_output=True, text=True, check=False
        )
        return done.stdout

    def pid(self, name: str) -> int:
        """The process of a program."""
        return self._processes[name].pid

    def is_alive(self, name: str) -> bool:
        """Whether a program runs."""
        return self._processes[name].poll() is None

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.look()
        self._processes[name].kill()
        self._processes[name].wait()

    def log(self, name: str) -> str:
        """What a program and those that it started have said."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def look(self, *names: str) -> list[psutil.Process]:
        """The processes of some programs, or of all, at this moment, with those that they started."""
        found: list[psutil.Process] = []
        for name in names or self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                mine = psutil.Process(self.pid(name))
                found += [mine, *mine.children(recursive=True)]
        self._seen.update(found)
        return found

    @property
    def _bin(self) -> Path:
        return (ENVIRONMENT / "bin").absolute()

    def _variables(self) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            **self._environment,
        }

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._variables(), cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def _wait(self, name: str, words: str, times: int) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self.log(name).lower().count(words) <= times:
            if not self.is_alive(name) or time.monotonic() > deadline_s:
                raise FieldfoldError(f"Flower's {name} did not come up: {self.log(name).strip()[-500:]}")
            time.sleep(LOOK_EVERY_S)


def _toml(value: str | float) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()
