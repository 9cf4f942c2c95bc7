"""Rolling back: an older version's parameters are released as the next one, and a replay comes to the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aggregator.fold.ca2fl import CA2FL
from aggregator.fold.fadas import FADAS
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.slots import Slots
from aggregator.history import audit
from aggregator.history.refold import refold
from aggregator.ledger.ledger import Ledger
from aggregator.past import released
from fieldfold.errors import StoreError
from fieldfold.wire.messages import ModelDelta, unpack
from tests.aggregator.histories import live_through
from tests.aggregator.tiny import OTHER_RUN, Plant, bundle, update

TASK = bundle().digest
METHODS: dict[str, AnyMethod] = {
    "fedasync": FedAsync(),
    "fedbuff": FedBuff(buffer_size=3),
    "rate-corrected": RateCorrectedFedBuff(buffer_size=2),
    "slots": Slots(),
    "ca2fl": CA2FL(buffer_size=2),
    "fadas": FADAS(buffer_size=2),
}


def turn_back(plant: Plant, version: int) -> None:
    with plant.ledger.transaction():
        plant.model.write_turn_back(version, plant.ledger)


def verified(path: Path) -> audit.Finding:
    ledger = Ledger.existing(path)
    finding = audit.verify(ledger, TASK, lambda _: None)
    ledger.close()
    assert finding.difference is None
    return finding


@pytest.fixture(params=list(METHODS.values()), ids=list(METHODS))
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Plant:
    """Has lived for a while."""
    plant = Plant(tmp_path / "ledger.sqlite", request.param)
    live_through(plant, 13)
    return plant


def test_it_is_the_next_version_with_the_parameters_of_the_old_one(plant: Plant) -> None:
    before = plant.model.version
    old = released(plant.ledger, plant.model.bundle, 2)
    turn_back(plant, 2)
    assert plant.model.version == before + 1
    np.testing.assert_array_equal(plant.model.exact, old)
    np.testing.assert_allclose(plant.model.released, old, rtol=1e-6)
    record = plant.ledger.version(TASK, before + 1)
    assert record is not None
    assert unpack(ModelDelta, record.delta).version == before + 1, "nodes follow it as they follow any version"
    [shown] = [each for each in plant.ledger.released_lately(TASK, 100) if each.to_version is not None]
    assert (shown.version, shown.to_version) == (before + 1, 2)


def test_after_a_crash_and_in_verify_it_comes_out_bit_for_bit(plant: Plant) -> None:
    for version in (1, 3, 0):
        turn_back(plant, version)
        live_through(plant, 9, seed=version)
    turn_back(plant, 2)
    turn_back(plant, 1)
    found = plant.digests()
    plant.crash()
    assert plant.digests() == found
    live_through(plant, 5, seed=9)
    expected = (plant.model.version, plant.ledger.num_accepted(TASK, 0))
    plant.ledger.close()
    finding = verified(plant.path)
    assert (finding.to_version, finding.contributions) == expected


def test_what_was_learned_from_the_bad_versions_is_too_late(plant: Plant) -> None:
    bad = plant.model.version
    turn_back(plant, 1)
    late = plant.send(update("press-1", plant.ledger.next_sequence("press-1"), base_version=bad))
    assert late.receipt.code == "stale"
    plant.crash()
    again = plant.send(update("press-2", plant.ledger.next_sequence("press-2"), base_version=bad))
    assert again.receipt.code == "stale"
    new = plant.send(update("press-3", plant.ledger.next_sequence("press-3"), base_version=plant.model.version))
    assert new.receipt.decision == "accepted"


def test_a_branch_without_nobody_is_turned_back_where_its_parent_was(plant: Plant, tmp_path: Path) -> None:
    turn_back(plant, 1)
    live_through(plant, 7, seed=3)
    turn_back(plant, 2)
    found = plant.digests()
    for version in (0, 2, plant.model.version - 1):
        target = tmp_path / f"branch-{version}.sqlite"
        refold(plant.ledger, target, OTHER_RUN, without=[], from_version=version, progress=lambda _: None)
        branch = Ledger.existing(target)
        records = [branch.version(TASK, number) for number in branch.version_places(TASK)]
        branch.close()
        assert [each.parameters for each in records if each] == found
        verified(target)


def test_a_branch_without_a_node_is_turned_back_too(plant: Plant, tmp_path: Path) -> None:
    turn_back(plant, 1)
    live_through(plant, 7, seed=3)
    refold(plant.ledger, tmp_path / "branch", OTHER_RUN, without=["press-2"], from_version=0, progress=lambda _: None)
    branch = Ledger.existing(tmp_path / "branch")
    assert len(branch.turns_back(TASK)) == 1
    branch.close()
    verified(tmp_path / "branch")


def test_a_version_that_never_was_or_is_not_kept_leaves_all_as_it_is(plant: Plant) -> None:
    found = plant.digests()
    with pytest.raises(StoreError, match="there is no version 99"):
        turn_back(plant, 99)
    plant.crash()
    assert plant.digests() == found
    assert plant.ledger.turns_back(TASK) == []
