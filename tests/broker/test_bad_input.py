"""Every mistake an operator can make, through the real command: one line that says what, where and what to do."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError
from fieldfold.sensors.dataset import load
from fieldfold.sensors.statistics import normalisation
from fieldfold.task.bundle import SECTION_NAMES, Bundle, pack
from node_app.store import Store, StoredVector
from tests.conftest import Mosquitto, free_port
from tests.identities import broker_table
from tests.node_app.turbofan import bundle_file, data_of, data_table, turbofan

PATIENCE_S = 20.0
COMMAND = (sys.executable, "-m", "fieldfold")
CONFIG, DATA, BUNDLE, LINK, STORE, CONTROL = 2, 3, 4, 5, 6, 7
"""Exit codes."""


# -- running the command --


def refused(*arguments: str, code: int) -> str:
    """The one line that a command ends with."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fieldfold: ")
    return line


@dataclass
class Gateway:
    """A folder with node.toml in it, and the daemon that runs there with only errors in its log."""

    folder: Path
    broker: str = ""
    data: str = data_table(3, 5, 8)
    name: str = "press-07"
    level: str = "error"
    _process: subprocess.Popen[str] | None = None

    def write(self) -> Path:
        path = self.folder / "node.toml"
        table = self.broker or broker_table("press-07", f"mqtt://127.0.0.1:{free_port()}")
        path.write_text(
            f'name = "{self.name}"\nfederation = "plant"\nstate_dir = "state"\ncontrol_socket = "node.sock"\n'
            f"[broker]\n{table}\n{self.data}",
            encoding="utf-8",
        )
        return path

    def knows(self, bundle: Bundle, *, model: bool = False) -> None:
        """As if it had taken the task, and version 0 of the model, before the broker went away."""
        store = Store(self.folder / "state" / "node.sqlite")
        store.put_bundle(bundle.digest, bundle.data)
        if model:
            scale = normalisation(load(bundle.manifest.data, data_of(3, 5, 8), self.folder).sums)
            store.put_vector("global", StoredVector(bundle.digest, "ab" * 8, 0, bundle.initial_parameters(), scale))
        store.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the daemon; it must end in good order."""
        arguments = ["node", "run", "--config", str(self.write()), "--log-level", self.level]
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log, text=True)
        try:
            yield
            assert self._process.poll() is None, f"it ended: {self.log}"
        finally:
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait(PATIENCE_S)
        assert code == 0, self.log

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def status(self) -> Any:
        """None while it is starting."""
        try:
            with ControlClient(self.folder / "node.sock") as client:
                return client.status()
        except ControlError:
            return None

    def until(self, *words: str) -> Any:
        """The status as soon as state, detail or link say all of these."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status = self.status()
            if status and all(word in f"{status['state']}: {status['detail']} ({status['link']})" for word in words):
                return status
            assert time.monotonic() < deadline, f"{status}\n{self.log}"
            time.sleep(0.05)

    def only_line(self) -> str:
        """What stands in the log of a daemon that has ended."""
        (line,) = self.log.splitlines()
        assert " ERROR " in line
        return line


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def expect_complaint(gateway: Gateway, *words: str) -> None:
    """It stays up, says it needs attention in its status, and the same in one line of its log."""
    with gateway.running():
        status = gateway.until("needs attention", *words)
        time.sleep(0.2)
    line = gateway.only_line()
    for word in words:
        assert word in status["detail"]
        assert word in line


# -- data --


def test_missing_data_is_named_at_once_even_before_there_is_a_task(gateway: Gateway) -> None:
    gateway.data = data_table(3, files='["readings/*.csv"]')
    expect_complaint(
        gateway, f"readings/*.csv matches no file in {gateway.folder}", "check the name and the permissions"
    )


@pytest.fixture
def trained_before(gateway: Gateway) -> Gateway:
    gateway.knows(turbofan())
    return gateway


def test_unreadable_data_is_named(trained_before: Gateway) -> None:
    whole = Path(data_of().files[0]).read_bytes()
    (trained_before.folder / "broken.txt.gz").write_bytes(whole[:100_000])
    trained_before.data = data_table(3, files='["broken.txt.gz"]')
    expect_complaint(trained_before, "broken.txt.gz", "is damaged or cut off", "copy it again")


def test_a_column_that_is_not_there_is_named(trained_before: Gateway) -> None:
    trained_before.data = data_table(3).replace("s21 = 26", "s21 = 27")
    expect_complaint(trained_before, "train_FD001.txt.gz", "s21", "27")


def test_text_where_a_number_belongs_is_named_with_its_line(trained_before: Gateway) -> None:
    write_readings(trained_before.folder / "readings.txt", {17: "broken"})
    trained_before.data = data_table(1, files='["readings.txt"]')
    expect_complaint(trained_before, "readings.txt", "line 18", "broken", "bad_cells")


def test_fewer_windows_than_a_batch_are_said(trained_before: Gateway) -> None:
    write_readings(trained_before.folder / "readings.txt", {}, rows=100)
    trained_before.data = data_table(1, files='["readings.txt"]')
    expect_complaint(trained_before, "windows to train on, a batch of this task needs 64", "data.include_series")


def test_windows_with_nan_are_dropped_and_counted_and_the_rest_is_used(gateway: Gateway) -> None:
    gateway.knows(turbofan(), model=True)
    write_readings(gateway.folder / "readings.txt", {150: "nan"}, rows=400)
    gateway.data = data_table(1, files='["readings.txt"]')
    with gateway.running():
        gateway.until("waiting for a newer version")
        data = gateway.status()["data"]
        socket = str(gateway.folder / "node.sock")
        shown = subprocess.run(
            [*COMMAND, "node", "status", "--socket", socket], capture_output=True, text=True, check=True
        )
    assert data["dropped_windows"] == {"missing value": 30}, "those of 30 rows that hold row 150"
    assert data["missing_cells"] == 1
    assert "dropped: 30 for a missing value" in shown.stdout
    assert gateway.log == ""


def write_readings(path: Path, cells: dict[int, str], *, rows: int = 300) -> None:
    """One engine with 21 sensors; `cells` replace sensor 7 at a row."""
    rng = np.random.default_rng(1)
    lines = []
    for row in range(rows):
        values = [f"{value:.3f}" for value in rng.standard_normal(25)]
        values[10] = cells.get(row, values[10])
        lines.append(" ".join(["1", *values]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- configuration --


@pytest.mark.parametrize("program", ["node", "aggregator"])
def test_a_configuration_that_is_not_there(program: str, tmp_path: Path) -> None:
    line = refused(program, "run", "--config", str(tmp_path / "none.toml"), code=CONFIG)
    assert f"{tmp_path}/none.toml: there is no such file" in line


def test_a_key_that_does_not_exist_is_named_with_the_likely_one(gateway: Gateway) -> None:
    gateway.data += "[training]\nstep_per_update = 5\n"
    line = refused("node", "run", "--config", str(gateway.write()), code=CONFIG)
    assert f"{gateway.folder}/node.toml: training.step_per_update: no such key" in line
    assert "did you mean steps_per_update?" in line


def test_a_name_that_no_node_may_bear(gateway: Gateway) -> None:
    gateway.name = "Press 7"
    line = refused("node", "run", "--config", str(gateway.write()), code=CONFIG)
    assert "node.toml: name: 'Press 7' is not a node name; use 1 to 63 of a-z" in line


def test_a_second_daemon_on_the_same_store(gateway: Gateway) -> None:
    with gateway.running():
        gateway.until("waiting for a task")
        line = refused("node", "run", "--config", str(gateway.folder / "node.toml"), code=STORE)
    assert "state/node.sqlite: the node's store cannot be opened" in line
    assert "another daemon runs on it" in line
    assert gateway.log == ""


def test_asking_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    line = refused("node", "status", "--socket", str(tmp_path / "node.sock"), code=CONTROL)
    assert "no daemon answers there; start it" in line


# -- bundles --


def aggregator_toml(folder: Path, task: str) -> str:
    path = folder / "aggregator.toml"
    path.write_text(
        f'federation = "plant"\nstate_dir = "state"\ncontrol_socket = "aggregator.sock"\ntask = "{task}"\n'
        f"[broker]\n{broker_table('aggregator', f'mqtt://127.0.0.1:{free_port()}')}",
        encoding="utf-8",
    )
    return str(path)


def test_a_truncated_bundle_in_the_aggregator_s_configuration(tmp_path: Path) -> None:
    (tmp_path / "cut.bundle").write_bytes(bundle_file().read_bytes()[:-1000])
    line = refused("aggregator", "run", "--config", aggregator_toml(tmp_path, "cut.bundle"), code=BUNDLE)
    assert f"{tmp_path}/cut.bundle: the bundle has" in line
    assert "fetch or build the bundle again" in line


def test_a_truncated_bundle_that_is_to_be_published(tmp_path: Path) -> None:
    (tmp_path / "cut.bundle").write_bytes(bundle_file().read_bytes()[:-1000])
    socket = str(tmp_path / "aggregator.sock")
    line = refused("task", "publish", str(tmp_path / "cut.bundle"), "--socket", socket, code=BUNDLE)
    assert f"{tmp_path}/cut.bundle: the bundle has" in line


def test_publishing_where_no_aggregator_runs(tmp_path: Path) -> None:
    socket = str(tmp_path / "aggregator.sock")
    line = refused("task", "publish", str(bundle_file()), "--socket", socket, code=CONTROL)
    assert f"{socket}: no daemon answers there" in line


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    line = refused("aggregator", "run", "--config", aggregator_toml(tmp_path, "none.bundle"), code=BUNDLE)
    assert f"cannot read {tmp_path}/none.bundle: No such file or directory; check the path" in line


def test_a_stored_bundle_that_fails_its_self_check_is_not_trained_with(gateway: Gateway) -> None:
    gateway.knows(fails_its_self_check(turbofan()), model=True)
    expect_complaint(gateway, "self-check: the loss of step 1 is", "do not train with this bundle here")


def test_a_stored_bundle_that_is_damaged_is_fetched_again(gateway: Gateway) -> None:
    data = turbofan().data[:-100]
    store = Store(gateway.folder / "state" / "node.sqlite")
    store.put_bundle(hashlib.sha256(data).hexdigest(), data)
    store.close()
    with gateway.running():
        gateway.until("waiting for a task")
    line = gateway.only_line()
    assert "the stored bundle is of no use, another is fetched: the bundle has" in line


def fails_its_self_check(bundle: Bundle) -> Bundle:
    """The bundle with other losses in its self-check, and sound in every other way."""
    check = bundle.manifest.self_check
    tampered = msgspec.structs.replace(check, losses=tuple(1.01 * loss for loss in check.losses))
    manifest = msgspec.structs.replace(bundle.manifest, self_check=tampered)
    return Bundle.from_bytes(pack(manifest, {name: bundle.section(name) for name in SECTION_NAMES}))


# -- the broker --


def test_without_a_broker_the_node_keeps_trying_and_keeps_what_it_has(gateway: Gateway) -> None:
    gateway.level = "warning"
    gateway.knows(turbofan(), model=True)
    with gateway.running():
        gateway.until("waiting for a newer version", "nobody listens there")
        time.sleep(3)  # several attempts
        status = gateway.status()
    assert (status["version"], status["outbox"], status["connected"]) == (0, 1, False)
    (line,) = gateway.log.splitlines()
    assert "link down: 127.0.0.1:" in line
    assert "nobody listens there; it is tried again and again, and nothing is lost" in line
    store = Store(gateway.folder / "state" / "node.sqlite")
    assert store.num_waiting() == 1
    store.close()


def identified(gateway: Gateway, mosquitto: Mosquitto, files: IdentityFiles) -> None:
    """The gateway's `[broker]` table for the broker, with these files."""
    gateway.broker = (
        f'url = "{mosquitto.url}"\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"'
    )


def test_a_certificate_that_is_not_there(gateway: Gateway, mosquitto: Mosquitto) -> None:
    files = mosquitto.add_identity(gateway.name)
    identified(gateway, mosquitto, replace(files, certificate=gateway.folder / "none.crt"))
    line = refused("node", "run", "--config", str(gateway.write()), code=LINK)
    assert f"{gateway.folder}/none.crt" in line
    assert not (gateway.folder / "node.sock").exists()


def test_a_certificate_of_another_node_is_refused_before_the_broker_says_nothing(
    gateway: Gateway, mosquitto: Mosquitto
) -> None:
    identified(gateway, mosquitto, mosquitto.add_identity("press-08"))
    line = refused("node", "run", "--config", str(gateway.write()), code=CONFIG)
    assert "name is press-07, but" in line
    assert "press-08.crt was issued to press-08" in line
    assert "set name to press-08, or give the certificate of press-07" in line


def test_a_certificate_that_the_broker_does_not_trust(gateway: Gateway, mosquitto: Mosquitto, tmp_path: Path) -> None:
    foreign = Mosquitto(tmp_path / "foreign", free_port())
    initialise(foreign.directory, port=foreign.port)
    stranger = foreign.add_identity(gateway.name)
    identified(gateway, mosquitto, replace(stranger, ca=mosquitto.identity("aggregator").ca))
    gateway.level = "warning"
    with gateway.running():
        status = gateway.until("waiting for a task", "refused: ", "our certificate")
        time.sleep(2.5)  # it tries again, and says nothing new
        assert gateway.status()["link"] == status["link"]
    assert "our certificate" in gateway.only_line()


def test_a_broker_that_our_authority_did_not_sign(gateway: Gateway, mosquitto: Mosquitto, tmp_path: Path) -> None:
    initialise(tmp_path / "foreign", port=free_port(), nodes=[gateway.name])
    identified(gateway, mosquitto, BrokerFolder(tmp_path / "foreign").identity(gateway.name))
    with gateway.running():
        gateway.until("refused: ", "is not signed by the CA that we trust")
    assert "is not signed by the CA that we trust" in gateway.only_line()


def test_a_topic_that_is_not_permitted_is_named_and_the_update_kept(
    gateway: Gateway, own_mosquitto: Mosquitto
) -> None:
    files = own_mosquitto.add_identity(gateway.name)
    rules = BrokerFolder(own_mosquitto.directory).acl
    text = rules.read_text(encoding="utf-8")
    changed = text.replace("pattern write fieldfold/+/node/%u/update\n", "")
    assert changed != text
    own_mosquitto.stop()
    rules.write_text(changed, encoding="utf-8")
    own_mosquitto.start()

    gateway.knows(turbofan(), model=True)
    identified(gateway, own_mosquitto, files)
    with gateway.running():
        status = gateway.until(
            "refused: the broker does not permit publishing to fieldfold/plant/node/press-07/update"
        )
        assert status["connected"]
        assert status["outbox"] == 1
    line = gateway.only_line()
    assert "permit it in the broker's access list" in line
