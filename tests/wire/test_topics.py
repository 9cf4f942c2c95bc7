from __future__ import annotations

import pytest

from fieldfold.errors import ConfigError, WireError
from fieldfold.wire.topics import Topics, check_node_name

TOPICS = Topics("plant")
LONGEST = "a" * 63


def test_the_tree() -> None:
    assert TOPICS.task_manifest == "fieldfold/plant/task/manifest"
    assert TOPICS.bundle("ab" * 32) == "fieldfold/plant/task/bundle/abababababababab"
    assert TOPICS.model_manifest == "fieldfold/plant/model/manifest"
    assert TOPICS.snapshot(1) == "fieldfold/plant/model/snapshot/1"
    assert TOPICS.delta(39) == "fieldfold/plant/model/delta/39"
    assert TOPICS.live(0) == "fieldfold/plant/model/live/0"
    assert TOPICS.update("press-1") == "fieldfold/plant/node/press-1/update"


def test_every_broker_takes_them() -> None:
    topics = Topics(LONGEST)
    for topic in (
        topics.update(LONGEST),
        topics.statistics(LONGEST),
        topics.status(LONGEST),
        topics.receipt(LONGEST),
        topics.command(LONGEST),
        f"{topics.bundle('f' * 64)}/{10**9}",
        f"{topics.snapshot(1)}/{10**9}",
        f"{topics.delta(2000)}/{10**9}",
        topics.live(10**9),
        topics.aggregator_status,
    ):
        assert topic.count("/") < 7
        assert len(topic.encode()) <= 200


@pytest.mark.parametrize("kind", ["update", "statistics", "status", "receipt", "command"])
def test_the_sender_stands_in_the_topic(kind: str) -> None:
    assert TOPICS.node_of(f"fieldfold/plant/node/press-1/{kind}") == "press-1"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fieldfold/plant/node/press-1",
        "fieldfold/plant/node//update",
        "fieldfold/plant/node/Press/update",
        "fieldfold/plant/node/press\n/update",
        "fieldfold/plant/model/manifest",
        "fieldfold/other/node/press-1/update",
        "fieldfold/plantnode/press-1/update",
        f"fieldfold/plant/node/{LONGEST}a/update",
    ],
)
def test_a_topic_that_is_no_node_s(topic: str) -> None:
    with pytest.raises(WireError, match="is not a node's topic"):
        TOPICS.node_of(topic)


@pytest.mark.parametrize("name", ["press-07", "7", LONGEST])
def test_good_names(name: str) -> None:
    assert check_node_name(name) == name
    assert Topics(name).root == f"fieldfold/{name}"


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a/b", "a b", "+", "#", "ä", "a\n", LONGEST + "a"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a node name"):
        check_node_name(name)
    with pytest.raises(ConfigError, match="is not a federation name"):
        Topics(name)


@pytest.mark.parametrize("name", ["aggregator", "observer", "server", "ca", "bridge", "bridge-1"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(ConfigError, match="reserved"):
        check_node_name(name)
