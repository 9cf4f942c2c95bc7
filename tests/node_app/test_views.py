"""What a screen may ask of a running node beside its status."""

from __future__ import annotations

import pytest

from fieldfold.control.client import ControlClient
from fieldfold.control.recent import Recent
from fieldfold.errors import ControlError
from fieldfold.sensors.schema import DataSchema
from fieldfold.sensors.statistics import FeatureSums, Normalisation
from fieldfold.task.bundle import Bundle
from node_app.records import Drift
from node_app.views import drift
from tests.node_app.beside import Beside
from tests.node_app.running import Running, joined, until


def test_what_happens_is_numbered_and_the_oldest_forgotten() -> None:
    recent: Recent[str] = Recent(3)
    assert (recent.after().end, recent.after().items) == (0, ())
    for word in "abcde":
        recent.add(word)
    assert (recent.after().end, recent.after().items) == (5, ("c", "d", "e"))
    assert recent.after(4).items == ("e",)
    assert recent.after(5).items == recent.after(99).items == ()


def test_drift_is_said_of_every_feature_with_a_value(bundle: Bundle) -> None:
    schema: DataSchema = bundle.manifest.data
    size = len(schema.numeric)
    count = (0.0, *(2.0,) * (size - 1))
    found = drift(
        schema, FeatureSums(count, (6.0,) * size, (20.0,) * size), Normalisation((1.0,) * size, (2.0,) * size)
    )
    assert [each.name for each in found] == [schema.features[place].name for place in schema.numeric[1:]]
    assert found[0] == Drift(found[0].name, mean=3.0, std=1.0, fleet_mean=1.0, fleet_std=2.0)


def test_a_node_shows_its_updates_its_curves_its_log_and_its_drift(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon, ControlClient(daemon._control.path) as client:
        assert client.attach(read_only=True).views == ("history", "outbox", "log", "runs", "adoptions", "drift")
        assert client.view("drift") == []
        joined(beside, bundle)
        update = beside.next_update()
        (waiting,) = client.view("outbox")
        assert (waiting["update"]["sequence"], waiting["update"]["has_left"]) == (1, True)
        assert waiting["chunks"] <= waiting["of_chunks"] == 1
        beside.receipt(update, "invalid")
        status = until(daemon, lambda status: status.rejected)

        (decided,) = client.view("history")
        assert (decided["sequence"], decided["accepted"], decided["reason"]) == (1, False, "it is invalid")
        assert client.view("outbox") == []
        runs, adoptions = client.view("runs"), client.view("adoptions")
        assert (runs["end"], runs["items"][0]["loss"]) == (1, status.loss)
        assert (adoptions["items"][0]["version"], adoptions["items"][0]["score"]) == (0, status.global_score)
        assert client.view("runs", after=1) == {"end": 1, "items": []}
        names = [feature.name for feature in bundle.manifest.data.features]
        shown = client.view("drift")
        assert [each["name"] for each in shown] == names
        assert shown[0]["mean"] == pytest.approx(shown[0]["fleet_mean"]), "a fleet of one"
        assert any("rejected" in entry["text"] for entry in client.view("log")["items"])
        with pytest.raises(ControlError, match="after: Expected `int`"):
            client.view("log", after="yesterday")
        assert status.next_run_s is not None
        assert status.round_trip_s is not None
        assert status.cpu_s > 0
