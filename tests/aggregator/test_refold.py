"""`refold`: what the model would be without a node, bit for bit, in a ledger of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.cli import aggregator as command
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.history import audit
from aggregator.history.refold import Branch, refold
from aggregator.ledger.ledger import Ledger
from fieldfold.errors import ConfigError, StoreError
from fieldfold.wire.messages import ModelDelta, unpack
from tests.aggregator.histories import NODES, UPDATES, written
from tests.aggregator.tiny import OTHER_RUN, RUN, Plant, bundle, random_delta, update

TASK = bundle().digest
METHODS: dict[str, AnyMethod] = {
    "fedasync": FedAsync(),
    "fedbuff": FedBuff(buffer_size=3),
    "rate-corrected": RateCorrectedFedBuff(buffer_size=2),
}


def branch_off(path: Path, target: Path, *without: str, from_version: int = 0) -> Branch:
    source = Ledger.existing(path)
    try:
        return refold(source, target, OTHER_RUN, without=without, from_version=from_version, progress=lambda _: None)
    finally:
        source.close()


def digests(path: Path) -> list[str]:
    ledger = Ledger.existing(path)
    found = [ledger.version(TASK, version) for version in ledger.version_places(TASK)]
    ledger.close()
    return [record.parameters for record in found if record is not None]


def verified(path: Path) -> audit.Finding:
    ledger = Ledger.existing(path)
    finding = audit.verify(ledger, TASK, lambda _: None)
    ledger.close()
    assert finding.difference is None
    return finding


@pytest.mark.parametrize("from_version", [0, 2, 4])
def test_without_nobody_it_is_the_same_model_under_another_name(tmp_path: Path, from_version: int) -> None:
    path = written(tmp_path / "ledger.sqlite", *METHODS.values())
    before = path.read_bytes()
    branch = branch_off(path, tmp_path / "branch.sqlite", from_version=from_version)
    assert digests(tmp_path / "branch.sqlite") == digests(path)
    assert (branch.left_out, branch.version) == (0, branch.parent_version)
    assert path.read_bytes() == before, "the old one is left as it is"
    ledger = Ledger.existing(tmp_path / "branch.sqlite")
    assert ledger.run(TASK) == OTHER_RUN
    for version in range(1, branch.version + 1):
        record = ledger.version(TASK, version)
        assert record is not None
        assert unpack(ModelDelta, record.delta).run.hex() == OTHER_RUN
    ledger.close()
    assert verified(tmp_path / "branch.sqlite").contributions == len(METHODS) * UPDATES


def live(path: Path, method: AnyMethod, turns: list[tuple[str, int]]) -> list[int]:
    """Each turn a node sends what it learned from the version that stood some turns before.

    Returns:
        for each turn, in which turn the version was released that it learned from.
    """
    plant, generator = Plant(path, method), np.random.default_rng(3)
    stood, learned_at = [0], []
    for number, (node, age) in enumerate(turns):
        base = stood[max(0, number - age)]
        plant.send(update(node, number + 1, delta=random_delta(generator), base_version=base))
        plant.fold()
        learned_at.append(stood.index(base))
        stood.append(plant.model.version)
    plant.ledger.close()
    return learned_at


def relive(
    path: Path, method: AnyMethod, turns: list[tuple[str, int]], learned_at: list[int], node: str
) -> list[str]:
    """The same without a node; each of the others learned from what then stood in that turn."""
    plant, generator = Plant(path, method), np.random.default_rng(3)
    stood = [0]
    for number, ((name, _), turn) in enumerate(zip(turns, learned_at, strict=True)):
        delta = random_delta(generator)
        if name != node:
            plant.send(update(name, number + 1, delta=delta, base_version=stood[turn]))
            plant.fold()
        stood.append(plant.model.version)
    found = plant.digests()
    plant.ledger.close()
    return found


TURNS = st.lists(st.tuples(st.sampled_from(NODES), st.integers(0, 6)), min_size=1, max_size=25)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=TURNS, node=st.sampled_from(NODES))
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_without_a_node_it_is_what_would_have_been_without_it(
    tmp_path_factory: pytest.TempPathFactory, method: AnyMethod, turns: list[tuple[str, int]], node: str
) -> None:
    folder = tmp_path_factory.mktemp("refold")
    turns = [*turns, (node, 0)]
    learned_at = live(folder / "whole.sqlite", method, turns)
    expected = relive(folder / "without.sqlite", method, turns, learned_at, node)
    branch = branch_off(folder / "whole.sqlite", folder / "branch.sqlite", node)
    assert digests(folder / "branch.sqlite") == expected
    assert branch.left_out == sum(name == node for name, _ in turns)
    verified(folder / "branch.sqlite")


def test_from_a_version_on_and_through_other_methods(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.sqlite", *METHODS.values())
    branch = branch_off(path, tmp_path / "branch.sqlite", "press-2", "press-4", from_version=20)
    old, new = digests(path), digests(tmp_path / "branch.sqlite")
    assert old[:21] == new[:21]
    assert old[21] != new[21]
    assert branch.origin.version == 20
    finding = verified(tmp_path / "branch.sqlite")
    [origin] = finding.origins
    assert (origin.run, origin.parent, origin.without) == (OTHER_RUN, RUN, ("press-2", "press-4"))
    ledger = Ledger.existing(tmp_path / "branch.sqlite")
    assert len(ledger.stretches(TASK)) == len(METHODS)
    ledger.close()


def test_it_goes_on_as_any_ledger_does(tmp_path: Path) -> None:
    """Sequence numbers go on, and a crash replays; the branch can be branched again."""
    path = written(tmp_path / "ledger.sqlite", METHODS["fedbuff"])
    branch_off(path, tmp_path / "branch.sqlite", "press-3")
    plant = Plant(tmp_path / "branch.sqlite", METHODS["fedbuff"])
    assert plant.model.run == OTHER_RUN
    for _ in range(4):
        sequence = plant.ledger.next_sequence("press-1")
        assert sequence > 1
        plant.send(update("press-1", sequence, run=OTHER_RUN, base_version=plant.model.version))
        plant.fold()
    found = plant.digests()
    plant.crash()
    assert plant.digests() == found
    assert plant.send(update("press-1", 1, run=OTHER_RUN)).receipt.code == "sequence_used"
    plant.ledger.close()
    source = Ledger.existing(tmp_path / "branch.sqlite")
    again = refold(source, tmp_path / "again", RUN, without=["press-1"], from_version=1, progress=lambda _: None)
    source.close()
    assert again.origin.parent == OTHER_RUN
    assert [origin.parent for origin in verified(tmp_path / "again").origins] == [RUN, OTHER_RUN]


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.sqlite", METHODS["fedbuff"])
    (tmp_path / "taken").write_bytes(b"precious")
    with pytest.raises(StoreError, match="there is a file already"):
        branch_off(path, tmp_path / "taken", "press-1")
    with pytest.raises(ConfigError, match="press-9: nothing of it was ever accepted; known here: press-1, press-2"):
        branch_off(path, tmp_path / "branch", "press-9")
    with pytest.raises(StoreError, match="there is no version 99; the newest is 5"):
        branch_off(path, tmp_path / "branch", "press-1", from_version=99)
    ledger = Ledger.existing(path)
    ledger._rows("UPDATE contribution SET body = NULL WHERE id = 9")
    ledger.close()
    with pytest.raises(StoreError, match="contribution 9 has no body"):
        branch_off(path, tmp_path / "branch", "press-1")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ledger.sqlite", "taken"]


def test_from_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.sqlite", METHODS["fedbuff"])
    arguments = ["refold", "--ledger", str(path), "--without", "press-4", "-o", str(tmp_path / "branch")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "2 contributions left out, 4 versions where run 0000000000000001 has 5" in result.output
    shown = CliRunner().invoke(command, ["verify", "--ledger", str(tmp_path / "branch")]).output
    assert "a branch of 0000000000000001 from version 0: versions 0 to 4 are bit for bit" in shown
