"""Which model is served: the best here, or the one that was pinned; over the socket, and through a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError, FieldfoldError
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Metric
from node_app.adopt import Served
from node_app.daemon import Daemon
from node_app.serving import Serving
from tests.node_app.beside import Beside
from tests.node_app.running import Running, joined, until

RMSE = Metric("rmse", "lower")
NONE = np.zeros(0, np.float32)


def model(version: int, score: float | None) -> Served:
    return Served(version, NONE, NONE, score)


@pytest.fixture
def serving() -> Serving:
    """Three models came; the second was the best until the third."""
    serving = Serving()
    for version, score in ((1, 9.0), (2, 5.0), (3, 4.0)):
        serving.offer(model(version, score), RMSE)
    return serving


def served(serving: Serving) -> int:
    assert serving.served is not None
    return serving.served.version


def test_what_is_pinned_stays_whatever_comes(serving: Serving) -> None:
    assert serving.pin() == "version 3 is served until it is unpinned"
    serving.offer(model(4, 0.1), RMSE)
    assert served(serving) == 3
    serving.unpin()
    serving.offer(model(5, 0.2), RMSE)
    assert served(serving) == 5
    assert serving.unpin() == "nothing is pinned"


def test_rolling_back_serves_the_one_before_and_pins_it(serving: Serving) -> None:
    assert serving.roll_back() == "version 2 is served again, until it is unpinned"
    serving.offer(model(4, 0.1), RMSE)
    assert served(serving) == 2
    assert serving.roll_back() == "version 3 is served again, until it is unpinned"


def test_a_refused_model_is_not_one_that_was_served(serving: Serving) -> None:
    serving.offer(model(4, 8.0), RMSE)
    serving.roll_back()
    assert served(serving) == 2


def test_where_there_is_nothing_to_choose_it_says_so() -> None:
    serving = Serving()
    with pytest.raises(ControlError, match="no model is served yet"):
        serving.pin()
    serving.offer(model(1, 9.0), RMSE)
    with pytest.raises(ControlError, match="nothing was served here before version 1"):
        serving.roll_back()


def test_over_the_socket_and_through_a_restart(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path
) -> None:
    def socket(daemon: Daemon) -> ControlClient:
        return ControlClient(daemon._control.path)

    with running() as daemon:
        with socket(daemon) as client, pytest.raises(ControlError, match="no model is served yet"):
            client.command("export")
        joined(beside, bundle)
        first = until(daemon, lambda status: status.served_version is not None).served_version
        with socket(daemon) as client:
            assert client.command("pin") == f"version {first} is served until it is unpinned"
            target = tmp_path / "served.safetensors"
            assert client.command("export", path=str(target)) == f"version {first} is in {target}"
            assert target.stat().st_size > 4 * bundle.manifest.layout.num_params
            for path, told in ((str(target), "there is a file already"), ("here.onnx", "give the whole path")):
                with pytest.raises(ControlError, match=told):
                    client.command("export", path=path)
            assert "-v0.onnx" in client.command("export")
        assert until(daemon, lambda status: status.pinned).served_version == first
    with running() as again:
        status = until(again, lambda status: status.served_version is not None)
        assert (status.served_version, status.pinned) == (first, True)
        with socket(again) as client:
            client.attach(read_only=True)
            with pytest.raises(FieldfoldError, match="read-only"):
                client.command("unpin")
