"""The whole node on the real turbofan task, over the in-memory broker: what operator and aggregator see of it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fieldfold.codec import decode
from fieldfold.control.client import ControlClient
from fieldfold.link.memory import MemoryBroker
from fieldfold.link.session import BrokerLimits
from fieldfold.task.bundle import SECTION_NAMES, Bundle, pack
from node_app import own_statistics
from node_app.cli import lines
from node_app.store import Store
from tests.node_app.beside import NODE, Beside
from tests.node_app.running import Running, joined, says, until
from tests.node_app.turbofan import data_of


def test_from_nothing_to_an_update_and_its_receipt(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        says(daemon, "waiting for a task")
        beside.say_task(bundle)
        statistics = beside.until(lambda: beside.statistics)[0]
        assert statistics.task == bundle.digest
        assert len(statistics.count) == len(bundle.manifest.data.features)
        says(daemon, "waiting for the fleet's statistics")

        beside.begin(bundle, statistics)
        name, update = beside.next_update()
        assert (update.node, update.sequence, update.base_version) == (NODE, 1, 0)
        assert update.run.hex() == beside.run
        assert update.num_steps == bundle.manifest.local_steps
        delta = decode(update.payload, bundle.manifest.layout.num_params)
        assert 0 < np.abs(delta).max() < 1
        status = says(daemon, "waiting for a newer version")
        assert (status.version, status.outbox, status.accepted) == (0, 1, 0)
        assert update.num_examples == status.data.parts["train"].windows
        assert update.base_score == (status.global_score, status.data.parts["validation"].windows)
        assert status.bytes_up > len(update.payload)

        beside.receipt((name, update))
        status = until(daemon, lambda status: status.accepted and not status.outbox)
        assert (status.rejected, status.last_receipt) == (0, "update 1 accepted")
    beside.until(lambda: beside.presences[-1].state == "offline")
    assert beside.presences[0].state in {"starting", "waiting for a task"}


def test_it_trains_on_each_newer_version_and_serves_the_best(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon:
        joined(beside, bundle)
        for version in range(4):
            update = beside.next_update()
            assert (update[1].sequence, update[1].base_version) == (version + 1, version)
            beside.receipt(update)
            beside.release()
        status = until(daemon, lambda status: status.version == status.newest_version == 4)
        assert status.served_score is not None
        assert status.global_score is not None
        assert status.served_score <= status.global_score, "rmse: lower is better"
        model_bytes = 4 * bundle.manifest.layout.num_params
        assert status.float32_down == 4 * model_bytes
        assert status.float32_up in {4 * model_bytes, 5 * model_bytes}, "the fifth may be under way"
        assert 0 < status.bytes_up < status.float32_up


def test_a_rejected_update_is_counted_with_its_reason(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        joined(beside, bundle)
        beside.receipt(beside.next_update(), "invalid")
        status = until(daemon, lambda status: status.rejected and not status.outbox)
        assert (status.accepted, status.last_receipt) == (0, "update 1 rejected: it is invalid")


def test_a_newcomer_takes_snapshot_and_deltas_and_who_stays_takes_deltas(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running() as first:
        joined(beside, bundle)
        for _ in range(7):
            beside.release()
        until(first, lambda status: status.version == 7)
    with running(enabled=False) as again:
        until(again, lambda status: status.version == 7)
        beside.release()
        until(again, lambda status: status.version == 8)
        assert says(again, "following").step == 0


def test_a_delta_that_was_lost_is_asked_for_again(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        joined(beside, bundle)
        until(daemon, lambda status: status.version == 0)
        for _ in range(4):
            beside.release(show=False)
        time.sleep(0.3)
        assert daemon.status().version == 0
        beside.release()  # the fifth comes with a snapshot, the way past what is gone for good
        until(daemon, lambda status: status.version == 5)


def test_a_bundle_of_which_a_part_was_lost_is_read_again(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    broker.limits = BrokerLimits(message_bytes=8192)
    beside.say_task(bundle)
    last = f"{beside.topics.bundle(bundle.digest)}/{len(bundle.data) // (8192 - 48)}"
    withheld = broker._retained.pop(last)
    with running() as daemon:
        until(daemon, lambda status: status.bytes_down > len(bundle.data) - 8192)
        broker._retained[last] = withheld  # nobody is told
        beside.until(lambda: beside.statistics, "the bundle did not come")


def test_who_comes_back_reads_the_deltas_it_missed_and_nothing_else(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    with running(enabled=False) as daemon:
        joined(beside, bundle)
        for _ in range(6):
            beside.release()
        until(daemon, lambda _: daemon._learner.progress.adopted_version == 6)
    for _ in range(3):
        beside.release()
    with running(enabled=False) as again:
        status = until(again, lambda status: status.version == 9)
    topics = [beside.topics.aggregator_key, beside.topics.task_manifest, beside.topics.model_manifest]
    topics += [f"{beside.topics.delta(slot)}/0" for slot in (7, 8, 9)]
    assert status.bytes_down == sum(len(broker._retained[topic]) for topic in topics)


def test_after_a_lost_link_only_the_chunks_that_are_missing_are_read(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    broker.limits = BrokerLimits(message_bytes=4096)
    with running(enabled=False) as daemon:
        joined(beside, bundle)
        until(daemon, lambda status: status.version == 0)
    for _ in range(5):
        beside.release()
    prefix = beside.topics.snapshot(1)
    chunks = sorted(topic for topic in broker._retained if topic.startswith(prefix))
    assert len(chunks) >= 8
    withheld = {topic: broker._retained.pop(topic) for topic in chunks[5:]}
    with running(enabled=False) as again:
        read_before = until(again, lambda status: status.newest_version == 5 and status.bytes_down > 4 * 4000)
        broker._retained.update(withheld)
        broker.drop(NODE)
        status = until(again, lambda status: status.version == 5)
        rest = sum(map(len, withheld.values()))
        assert status.bytes_down - read_before.bytes_down < rest + 2 * 4096, "and one manifest"


def test_an_aggregator_that_lost_its_ledger_begins_anew_and_everybody_with_it(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon:
        joined(beside, bundle)
        for _ in range(3):
            beside.receipt(beside.next_update())
            beside.release()
        until(daemon, lambda status: status.version == 3)
        update = beside.next_update()
        beside.statistics.clear()
        beside.has_no_model()
        beside.receipt(update, "no_model")
        statistics = beside.until(lambda: beside.statistics, "they are needed again")[-1]
        beside.begin(bundle, statistics, run="00000000000000bb")
        assert beside.until(lambda: beside.next_update()[1].run.hex() == beside.run)
        assert daemon.status().version == 0


def test_a_model_from_before_a_restored_backup_is_given_up(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        joined(beside, bundle)
        statistics = beside.statistics[-1]
        for _ in range(3):
            beside.receipt(beside.next_update())
            beside.release()
        update = beside.next_update()
        beside.begin(bundle, statistics)
        beside.release()
        beside.receipt(update, "ahead")
        until(daemon, lambda status: status.version == 1)
        assert beside.until(lambda: beside.next_update()[1].base_version == 1)


def test_wrong_bits_are_noticed_and_mended_by_a_snapshot(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        joined(beside, bundle)
        beside.release()
        until(daemon, lambda status: status.version == 1)
        assert daemon._download.follower is not None
        assert daemon._download.follower.model is not None
        daemon._download.follower.model.parameters[0] += 1
        beside.release()
        beside.release()
        until(daemon, lambda status: status.version == 3)


@pytest.mark.parametrize("connected", [True, False], ids=["online", "no broker"])
def test_started_again_it_goes_on_from_what_it_had(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle, *, connected: bool
) -> None:
    with running():
        joined(beside, bundle)
        beside.receipt(beside.next_update())
        beside.release()
        beside.next_update()
    if not connected:
        broker.stop()
    with running() as again:
        status = until(again, lambda status: status.global_score)
        assert status.outbox == 1
        assert (status.version, status.accepted, status.task) == (1, 1, "turbofan")
        assert status.connected == connected
        if connected:
            assert beside.next_update()[1].sequence == 2, "what had no receipt is sent again"


def test_killed_before_it_kept_the_model_it_gets_it_again(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path
) -> None:
    """The broker holds the session and would send what it retains only to a new subscription."""
    with running():
        joined(beside, bundle)
        beside.receipt(beside.next_update())
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    with running() as again:
        until(again, lambda status: status.version == 0)


def test_a_bundle_that_is_damaged_is_refused_and_a_sound_one_taken(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    damaged = Bundle(bundle.data[:-1] + bytes([bundle.data[-1] ^ 1]), bundle.manifest, 0)
    with running() as daemon:
        beside.say_task(damaged)
        status = says(daemon, "needs attention")
        assert f"the task {damaged.digest[:16]} is refused" in status.detail
        beside.until(lambda: beside.presences and beside.presences[-1].state == "needs attention")
        joined(beside, bundle)
        status = until(daemon, lambda status: status.version == 0)
        assert status.detail == ""


def test_a_bundle_that_fails_its_self_check_is_not_trained_with(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    beside_it = reproduces_nothing(bundle)
    with running() as daemon:
        joined(beside, beside_it)
        status = says(daemon, "needs attention")
        assert "self-check: the loss of step 1 is" in status.detail
        assert "do not train with this bundle here" in status.detail
        joined(beside, bundle)
        assert beside.next_update()[1].run.hex() == beside.run


def reproduces_nothing(bundle: Bundle) -> Bundle:
    """The bundle with other losses in its self-check."""
    check = bundle.manifest.self_check
    tampered = msgspec.structs.replace(check, losses=tuple(1.01 * loss for loss in check.losses))
    manifest = msgspec.structs.replace(bundle.manifest, self_check=tampered)
    return Bundle.from_bytes(pack(manifest, {name: bundle.section(name) for name in SECTION_NAMES}))


def test_another_task_is_taken_up_in_the_middle_of_training(running: Running, beside: Beside, bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, name="turbofan-2")
    second = Bundle.from_bytes(pack(manifest, {name: bundle.section(name) for name in SECTION_NAMES}))
    with running(max_steps_per_s=1.0) as daemon:
        joined(beside, bundle)
        says(daemon, "learning")
        beside.statistics.clear()
        joined(beside, second)
        status = until(daemon, lambda status: status.task == "turbofan-2" and status.version == 0)
        assert status.task_digest == second.digest
        says(daemon, "learning")


def test_it_pauses_in_the_middle_of_a_run_and_goes_on(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path
) -> None:
    with running(max_steps_per_s=20.0) as daemon, ControlClient(tmp_path / "node.sock") as client:
        joined(beside, bundle)
        until(daemon, lambda status: status.step > 1)
        assert client.command("pause") == "paused"
        says(daemon, "paused")
        assert client.command("resume") == "resumed"
        assert beside.next_update()[1].num_steps == 10

        beside.command("pause", by="the operator")
        says(daemon, "paused")
        beside.release()
        until(daemon, lambda status: status.version == 1)
        beside.command("resume")
        assert beside.next_update()[1].base_version == 1


def test_statistics_are_said_again_when_somebody_asks(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running():
        joined(beside, bundle)
        beside.next_update()
        first = beside.statistics[-1]
        beside.statistics.clear()
        beside.command("resend_statistics")
        [again] = beside.until(lambda: beside.statistics)
        assert again.issued > first.issued
        assert msgspec.structs.replace(again, issued=first.issued) == first


def test_statistics_that_were_lost_are_said_again(
    running: Running, beside: Beside, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_statistics, "REPEAT_EVERY_S", 0.2)
    with running():
        beside.say_task(bundle)
        beside.until(lambda: len(beside.statistics) >= 3)
        beside.begin(bundle, beside.statistics[-1])
        beside.next_update()
        beside.statistics.clear()
        beside.listen(0.5)
        assert beside.statistics == [], "who has a model was heard"


def test_no_message_is_larger_than_the_broker_allows(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    broker.limits = BrokerLimits(message_bytes=2048)
    with running(profile="lossless"):
        joined(beside, bundle)
        _, update = beside.next_update()
    assert len(update.payload) > 30_000
    assert 2000 < beside.largest_message <= 2048


def test_the_unbiased_profile_leaves_nothing_for_later(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path
) -> None:
    with running(profile="unbiased"):
        joined(beside, bundle)
        _, update = beside.next_update()
    assert np.any(decode(update.payload, bundle.manifest.layout.num_params))
    with closing(Store(tmp_path / "state" / "node.sqlite")) as store:
        kept = store.unsent(beside.run)
    assert kept is not None
    assert not kept.feedback.residual.any()


def test_the_status_reads_as_one_fact_a_line(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running() as daemon:
        joined(beside, bundle)
        beside.receipt(beside.next_update())
        status = until(daemon, lambda status: status.accepted and not status.outbox)
        shown = "\n".join(lines(msgspec.json.decode(msgspec.json.encode(status))))
    for part in (
        "node      press-07 of plant: ",
        "link      up, MQTT 5, 0 reconnects",
        "task      turbofan, onnx",
        "updates   1 accepted, 0 rejected, 0 waiting",
        "windows to train on",
        "receipt   update 1 accepted",
    ):
        assert part in shown


def test_data_that_is_not_there_is_said_before_there_is_a_task_and_looked_for_again(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path
) -> None:
    data = msgspec.structs.replace(data_of(3, 5, 8), files=("readings.txt.gz",))
    with running(data=data) as daemon:
        status = says(daemon, "needs attention")
        assert "readings.txt.gz matches no file" in status.detail
        (tmp_path / "readings.txt.gz").symlink_to(data_of().files[0])
        daemon._resume("somebody")
        says(daemon, "waiting for a task")
        joined(beside, bundle)
        beside.next_update()
