"""One gateway without torch, one with: real daemons over a real broker learn one model together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file

PLAIN, WITH_TORCH = "gateway-01", "gateway-02"
ENGINES = {PLAIN: (3, 5, 8, 13, 21, 34), WITH_TORCH: (55, 89, 1, 4, 9, 16)}
BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is not on this gateway")

sys.meta_path.insert(0, Blocked())
"""


class MixedFleet(LoopFleet):
    """Python runs `sitecustomize` before anything else: in the plain gateway, and in all processes that it starts."""

    def _write(self, name: str, text: str) -> Path:
        if name == WITH_TORCH:
            text = text.replace("[training]", '[training]\nruntime = "torch"\ndevice = "cpu"')
        return super()._write(name, text)

    def _spawn(self, name: str, *arguments: str, module: str = "fieldfold", **environment: str) -> None:
        if name == PLAIN:
            (self.folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
            environment["PYTHONPATH"] = f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        super()._spawn(name, *arguments, module=module, **environment)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[MixedFleet]:
    with MixedFleet(tmp_path / "fleet", bundle_file(), ENGINES, dict.fromkeys(ENGINES, 200.0)) as running:
        running.start_broker()
        running.start_aggregator()
        for name in ENGINES:
            running.start_node(name)
        yield running


def test_a_gateway_without_torch_and_one_with_it_learn_one_model(fleet: MixedFleet) -> None:
    first = fleet.until(lambda now: now["score"], "the held-out data gave no score")["score"]
    fleet.until(
        lambda now: len(now["nodes"]) == 2 and all(node["accepted"] >= 5 for node in now["nodes"]), "not both"
    )
    status = fleet.until(lambda now: now["score"] < 0.6 * first, f"from {first} it did not get better")
    assert status["rejected"] == status["malformed"] == 0
    plain, with_torch = fleet.node_status(PLAIN), fleet.node_status(WITH_TORCH)
    assert (plain["runtime"], plain["runtime_reason"]) == ("onnx", "torch is not installed")
    assert (with_torch["runtime"], with_torch["device"]) == ("torch", "cpu")
