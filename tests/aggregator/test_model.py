"""The model is a fold over the ledger: whenever the program ends, the same versions come out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator import model as model_module
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.refereed import Refereed
from aggregator.fold.slots import Slots
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import digest
from fieldfold.wire.messages import ClientUpdate, ModelDelta, unpack
from tests.aggregator.tiny import FIRST, NUM_PARAMS, Plant, bundle, random_delta, update

METHODS: dict[str, AnyMethod] = {
    "fedasync": FedAsync(),
    "fedbuff": FedBuff(buffer_size=3),
    "rate-corrected": RateCorrectedFedBuff(),
    "rate-corrected-3": RateCorrectedFedBuff(buffer_size=3, clip_factor=1.5),
    "slots": Slots(),
    "refereed": Refereed(),
}
TURNS = 16
NODES = ("press-1", "press-2", "press-3", "press-4")


def season(method: AnyMethod, count: int = TURNS) -> list[ClientUpdate]:
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


def undisturbed(folder: Path, method: AnyMethod) -> tuple[list[str], bytes]:
    plant = Plant(folder / "undisturbed.sqlite", method)
    for sent in season(method):
        send_based(plant, sent)
        plant.fold()
    found = plant.digests(), plant.model.exact.tobytes()
    plant.ledger.close()
    return found


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_crash_after_any_contribution_changes_no_bit_of_any_version(tmp_path: Path, method: AnyMethod) -> None:
    """After the contribution's commit and before its fold; after the fold; and twice in a row."""
    expected = undisturbed(tmp_path, method)
    assert len(expected[0]) > 4
    for place in range(TURNS):
        plant = Plant(tmp_path / f"crash-{place}.sqlite", method)
        for turn, sent in enumerate(season(method)):
            send_based(plant, sent)
            if turn == place:
                plant.crash()
                newest = plant.ledger.checkpoints(bundle().digest)[-1]
                assert plant.replayed >= 1 or newest.contribution == plant.model.contribution
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
    tmp_path_factory: pytest.TempPathFactory, method: AnyMethod, data: st.DataObject
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
    assert before == 3900.0
    plant.crash()
    assert plant.replayed == 0
    assert plant.model.typical_norm == before
    assert plant.send(update(sequence=5, delta=(4000.0, 0, 0), base_version=4)).receipt.decision == "accepted"
    plant.ledger.close()


def test_a_step_back_leaves_nothing_out_of_its_release_and_replays_like_any_other(tmp_path: Path) -> None:
    """The careful rule has stopped to help; then whatever the bold one does is said to harm."""
    plant = Plant(tmp_path / "ledger.sqlite", Refereed(), profile="compensated", snapshot_every=1000)
    generator = np.random.default_rng(3)
    for turn in range(400):
        node, before = NODES[turn % 4], plant.model.released
        loss = 1.0 if turn < 4 else 0.9 if plant.model._state.trial.bold else 0.4
        version = plant.model.version
        plant.send(update(node, turn // 4 + 1, delta=random_delta(generator), base_version=version, base_loss=loss))
        plant.fold()
        if plant.model._state.undone[1] == version > 0:
            break
    else:
        pytest.fail("nothing was undone")
    assert not np.array_equal(plant.model.released, before)
    np.testing.assert_allclose(plant.model.released, plant.model.exact, rtol=1e-6, atol=1e-7)
    expected = plant.digests()
    plant.crash()
    assert plant.replayed > 20
    assert plant.digests() == expected
    plant.ledger.close()


def test_a_replay_that_comes_out_differently_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1), snapshot_every=100)
    plant.send(update())
    plant.fold()
    plant.ledger._rows("UPDATE version SET parameters = ? WHERE version = 1", ("0" * 64,))
    with pytest.raises(StoreError, match=r"version 1 replays to .* the ledger says 0000000000000000; .*verify"):
        plant.crash()
    plant.ledger.close()


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2), snapshot_every=100)
    with plant.ledger.transaction():
        plant.ledger._rows("UPDATE checkpoint SET state = ?", (b"\xc1",))
    with pytest.raises(StoreError, match="the checkpoint of version 0 holds no state of FedBuff"):
        plant.crash()
    plant.ledger.close()


def test_settings_that_this_program_does_not_know_are_refused(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2))
    plant.ledger._rows("""UPDATE stretch SET settings = '{"fold": {"method": "of-tomorrow"}, "profile": "int8"}'""")
    with pytest.raises(StoreError, match=r"the settings from version 0 on are not of this program: .*of-tomorrow"):
        plant.crash()
    plant.ledger.close()


@pytest.mark.parametrize("lost", ["DELETE FROM checkpoint", "DELETE FROM stretch"])
def test_without_a_checkpoint_or_its_settings_there_is_nothing_to_restore(tmp_path: Path, lost: str) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2))
    plant.ledger._rows(lost)
    with pytest.raises(StoreError, match=r"there is no checkpoint|does not say how contribution 0 was folded"):
        plant.crash()
    plant.ledger.close()


def fold_some(plant: Plant, first: int, last: int) -> None:
    for sent in season(plant.method, TURNS)[first:last]:
        send_based(plant, sent)
        plant.fold()


def test_the_same_method_goes_on_with_other_settings_and_keeps_what_waits(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=3), snapshot_every=100)
    fold_some(plant, 0, 8)
    version, exact = plant.model.version, plant.model.exact.tobytes()
    plant.method = FedBuff(buffer_size=5)
    plant.crash()

    assert plant.replayed == 8, "nothing was written at the end: it crashed"
    assert (plant.model.version, plant.model.exact.tobytes()) == (version, exact)
    assert [stretch.fresh for stretch in plant.ledger.stretches(bundle().digest)] == [True, False]
    fold_some(plant, 8, 11)
    assert plant.model.version == version + 1, "two waited, three came"
    plant.ledger.close()


def test_another_method_begins_anew_from_the_exact_model(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=3), snapshot_every=100)
    fold_some(plant, 0, 8)
    version, exact = plant.model.version, plant.model.exact.tobytes()
    plant.method, plant.profile = RateCorrectedFedBuff(buffer_size=2), "lossless"
    plant.crash()

    assert (plant.model.version, plant.model.exact.tobytes()) == (version, exact)
    first, second = plant.ledger.stretches(bundle().digest)
    assert (first.contribution, first.fresh, second.contribution, second.version) == (0, True, 8, version)
    assert second.fresh
    assert '"method":"rate-corrected-fedbuff"' in second.settings
    assert '"profile":"lossless"' in second.settings
    fold_some(plant, 8, 10)
    assert plant.model.version == version + 1
    plant.crash()
    assert len(plant.ledger.stretches(bundle().digest)) == 2, "the same settings again are no other stretch"
    plant.ledger.close()


def test_settings_that_are_changed_back_before_anything_came_still_began_anew(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=3), snapshot_every=100)
    fold_some(plant, 0, 8)
    version = plant.model.version
    for method in (FedAsync(), FedBuff(buffer_size=2), FedBuff(buffer_size=3)):
        plant.method = method
        plant.crash()
    assert [stretch.fresh for stretch in plant.ledger.stretches(bundle().digest)] == [True, True]
    fold_some(plant, 8, 9)
    assert plant.model.version == version, "one waits; the two of before were left behind"
    plant.ledger.close()


def test_a_replay_is_short_however_many_updates_come_between_two_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model_module, "PARAMS_BETWEEN_CHECKPOINTS", 5 * (NUM_PARAMS + model_module.PARAMS_OF_OVERHEAD)
    )
    method = FedBuff(buffer_size=100)
    plant = Plant(tmp_path / "ledger.sqlite", method)
    for sequence in range(1, 13):
        plant.send(update(sequence=sequence))
        if sequence != 9:
            plant.fold()
    assert [place.contribution for place in plant.ledger.checkpoints(bundle().digest)] == [10]
    state = plant.model.at_present()
    plant.crash()
    assert plant.replayed == 2
    assert plant.model.at_present() == state, "the ten that wait are in the checkpoint"
    plant.ledger.close()


@pytest.mark.parametrize(
    ("num_params", "contributions", "versions"), [(3, 10_000, 0), (100_000, 3600, 360), (10_000_000, 125, 13)]
)
def test_how_much_lies_between_two_checkpoints(num_params: int, contributions: int, versions: int) -> None:
    """A version counts as ten updates: both are folded again, and a replay takes seconds."""
    assert model_module.replay_is_long(contributions, versions, num_params)
    assert not model_module.replay_is_long(contributions // 2, versions // 2, num_params)
