"""The model is a fold over the ledger: whenever the program ends, the same versions come out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.fold.contribution import Method
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import digest
from fieldfold.wire.messages import ClientUpdate, ModelDelta, unpack
from tests.aggregator.tiny import FIRST, NUM_PARAMS, Plant, bundle, random_delta, update

METHODS: dict[str, Method] = {
    "fedasync": FedAsync(),
    "fedbuff": FedBuff(buffer_size=3),
    "rate-corrected": RateCorrectedFedBuff(),
    "rate-corrected-3": RateCorrectedFedBuff(buffer_size=3, clip_factor=1.5),
}
TURNS = 16
NODES = ("press-1", "press-2", "press-3", "press-4")


def season(method: Method, count: int = TURNS) -> list[ClientUpdate]:
    """Updates as four nodes send them, one of them slowly and from old versions."""
    generator = np.random.default_rng(7)
    sequences = dict.fromkeys(NODES, 0)
    sent = []
    for turn in range(count):
        node = NODES[3] if turn % 7 == 6 else NODES[turn % 3]
        sequences[node] += 1
        age = 0 if method.max_staleness == 0 else int(generator.integers(0, 4))
        sent.append(update(node, sequences[node], delta=random_delta(generator), base_version=-age))
    return sent


def send_based(plant: Plant, sent: ClientUpdate) -> None:
    """Sends an update that stands `-base_version` versions behind the newest."""
    base = max(0, plant.model.version + sent.base_version)
    answer = plant.send(msgspec.structs.replace(sent, base_version=base))
    assert answer.receipt.decision == "accepted", answer.receipt


def undisturbed(folder: Path, method: Method) -> tuple[list[str], bytes]:
    plant = Plant(folder / "undisturbed.sqlite", method)
    for sent in season(method):
        send_based(plant, sent)
        plant.fold()
    found = plant.digests(), plant.model.exact.tobytes()
    plant.ledger.close()
    return found


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_crash_after_any_contribution_changes_no_bit_of_any_version(tmp_path: Path, method: Method) -> None:
    """After the contribution's commit and before its fold; after the fold; and twice in a row."""
    expected = undisturbed(tmp_path, method)
    assert len(expected[0]) > 4
    for place in range(TURNS):
        plant = Plant(tmp_path / f"crash-{place}.sqlite", method)
        for turn, sent in enumerate(season(method)):
            send_based(plant, sent)
            if turn == place:
                plant.crash()
                assert plant.replayed >= 1 or plant.model.version == plant.model.checkpoint_version
                plant.crash()
            plant.fold()
            if turn == place:
                plant.crash()
        assert (plant.digests(), plant.model.exact.tobytes()) == expected
        plant.ledger.close()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_versions_depend_on_the_log_and_not_on_how_it_was_cut_into_batches(
    tmp_path_factory: pytest.TempPathFactory, method: Method, data: st.DataObject
) -> None:
    """Contributions that are committed together are folded as if each had been folded alone."""
    folder = tmp_path_factory.mktemp("batches")
    whole = Plant(folder / "whole.sqlite", method)
    for sent in season(method):
        whole.send(msgspec.structs.replace(sent, base_version=0))
        whole.fold()
    batched = Plant(folder / "batched.sqlite", method)
    for sent in season(method):
        batched.send(msgspec.structs.replace(sent, base_version=0))
        step = data.draw(st.sampled_from(["fold", "wait", "crash"]))
        if step == "fold":
            batched.fold()
        elif step == "crash":
            batched.crash()
    batched.fold()
    assert batched.digests() == whole.digests()
    assert batched.model.exact.tobytes() == whole.model.exact.tobytes()
    whole.ledger.close()
    batched.ledger.close()


def test_fedavg_counts_only_the_newest_version_also_within_a_batch(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedAvg(clients_per_round=2), profile="lossless")
    for node in NODES[:3]:
        plant.send(update(node, delta=(1, 0, 0)))
    plant.fold()
    assert plant.model.version == 1
    np.testing.assert_allclose(plant.model.exact, FIRST + np.array([1, 0, 0], np.float32))
    plant.send(update("press-4", delta=(3, 0, 0), base_version=1))
    plant.fold()
    assert plant.model.version == 1  # the third of before did not slip into this round
    plant.ledger.close()


def test_fedasync_sees_how_stale_a_delta_is_when_its_turn_comes(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedAsync(alpha=1.0, a=1.0), profile="lossless")
    plant.send(update("press-1", delta=(1, 0, 0)))
    plant.send(update("press-2", delta=(3, 0, 0)))
    plant.fold()
    # x = 1 above the start after the first; y = 3 above it, one version old: alpha = 1/2
    np.testing.assert_allclose(plant.model.exact - FIRST, [2, 0, 0], rtol=1e-6)
    plant.ledger.close()


def test_every_node_that_adds_the_deltas_holds_the_released_bits(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2), profile="int4")
    for sent in season(plant.method):
        send_based(plant, sent)
        plant.fold()
    held = bundle().initial_parameters()
    for version in range(1, plant.model.version + 1):
        record = plant.ledger.version(bundle().digest, version)
        assert record is not None
        held = held + decode(unpack(ModelDelta, record.delta).payload, NUM_PARAMS)
        assert digest(held) == record.parameters
    assert held.tobytes() == plant.model.released.tobytes()
    np.testing.assert_allclose(plant.model.exact, plant.model.released, atol=0.05)
    plant.ledger.close()


def test_what_is_typical_is_the_same_after_a_crash(tmp_path: Path) -> None:
    """Or else a fleet with large deltas would be refused, for ever, after the first restart."""
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1), snapshot_every=1)
    for sequence, length in enumerate((80.0, 4000.0, 4100.0, 3900.0), start=1):
        assert plant.send(update(sequence=sequence, delta=(length, 0, 0))).receipt.decision == "accepted"
        plant.fold()
    before = plant.model.typical_norm
    assert before == 3950.0
    plant.crash()
    assert plant.replayed == 0
    assert plant.model.typical_norm == before
    assert plant.send(update(sequence=5, delta=(4000.0, 0, 0), base_version=4)).receipt.decision == "accepted"
    plant.ledger.close()


def test_a_replay_that_comes_out_differently_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1), snapshot_every=100)
    plant.send(update())
    plant.fold()
    plant.method = FedBuff(buffer_size=1, server_learning_rate=0.5)
    with pytest.raises(StoreError, match=r"version 1 replays to .* the ledger says .*; start with the \[fold\]"):
        plant.crash()
    plant.ledger.close()


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2), snapshot_every=100)
    with plant.ledger.transaction():
        plant.ledger._rows("UPDATE checkpoint SET state = ?", (b"\xc1",))
    with pytest.raises(StoreError, match="the checkpoint of version 0 holds no state of FedBuff"):
        plant.crash()
    plant.ledger.close()


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2))
    with plant.ledger.transaction():
        plant.ledger._rows("DELETE FROM checkpoint")
    with pytest.raises(StoreError, match="there is no checkpoint"):
        plant.crash()
    plant.ledger.close()


def test_after_a_clean_end_it_goes_on_with_other_settings_of_the_method(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=3), snapshot_every=100)
    for sent in season(plant.method, 8):
        send_based(plant, sent)
        plant.fold()
    version, exact = plant.model.version, plant.model.exact.tobytes()
    with plant.ledger.transaction():
        plant.model.checkpoint(plant.ledger)
    plant.method = FedBuff(buffer_size=5)
    plant.crash()

    assert plant.replayed == 0
    assert (plant.model.version, plant.model.exact.tobytes()) == (version, exact)
    for sent in season(plant.method, TURNS)[8:13]:
        send_based(plant, sent)
        plant.fold()
    assert plant.model.version == version + 1
