"""What the example ships is what its sources say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import aggregator.config
import node_app.config
from examples.turbofan.baselines import COLUMNS
from examples.turbofan.partition import ENGINES, FEWEST, GATEWAYS, MOST, partition
from fieldfold.sensors.dataset import load
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.build import build_file

EXAMPLE = Path("examples/turbofan")


@pytest.mark.parametrize("name", ["turbofan", "alone"])
def test_the_shipped_bundle_is_the_compiled_task_file(name: str) -> None:
    shipped = Bundle.read(EXAMPLE / f"{name}.bundle")
    built = build_file(EXAMPLE / ("task.py" if name == "turbofan" else "alone.py"), lambda _: None).bundle

    # Another processor may round the losses of the self-check otherwise; everything else is the same to the bit.
    unchecked = {"self_check": shipped.manifest.self_check, "producer": shipped.manifest.producer}
    assert msgspec.structs.replace(built.manifest, **unchecked) == shipped.manifest
    assert built.manifest.self_check.losses == pytest.approx(shipped.manifest.self_check.losses, rel=1e-4)


def test_the_example_configurations_are_valid_and_find_their_data() -> None:
    node = node_app.config.load(EXAMPLE / "node.toml")
    beside = aggregator.config.load(EXAMPLE / "aggregator.toml")
    schema = Bundle.read(EXAMPLE / beside.task).manifest.data

    assert node.data.columns == COLUMNS
    assert len(load(schema, node.data, EXAMPLE).train) > 0
    assert beside.evaluation is not None
    assert len(load(schema, beside.evaluation, EXAMPLE, held_out=True).test) == ENGINES


@pytest.mark.parametrize("seed", range(5))
def test_a_partition_gives_every_gateway_engines_of_its_own(seed: int) -> None:
    owned = partition(seed)
    every = [engine for mine in owned.values() for engine in mine]

    assert len(owned) == GATEWAYS
    assert all(FEWEST <= len(mine) <= MOST for mine in owned.values())
    assert len(set(every)) == len(every)
    assert set(every) <= set(range(1, ENGINES + 1))
    assert owned == partition(seed)
