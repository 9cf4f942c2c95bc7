"""What a program may rely on, whichever `Link` it holds. Every test runs on Mosquitto and on the in-memory twin."""

from __future__ import annotations

import threading

import pytest

from fieldfold.errors import LinkDownError, LinkError
from fieldfold.link.limits import RECEIVE_MAXIMUM
from fieldfold.link.session import Connected, Disconnected, Link, Received, Will
from tests.link.brokers import World, payloads, receive, receives_nothing, until, wait_for


def up(world: World, client_id: str, *filters: str, will: Will | None = None) -> Link:
    link = world.link(client_id, will)
    for topic_filter in filters:
        link.subscribe(topic_filter)
    link.start()
    wait_for(link, Connected)
    if filters:
        # The subscription stands once a message of our own has come round.
        link.subscribe(f"ready/{client_id}")
        assert link.publish(f"ready/{client_id}", b"?").wait(5.0)
        receive(link, 1)
        settle(link)
    return link


def settle(link: Link) -> None:
    """Returns once the broker has seen all that the link sent before."""
    assert link.publish("elsewhere", b"").wait(5.0)


def test_a_published_message_arrives(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "node/+/update")

    assert gateway.publish("node/a/update", b"one").wait(5.0)
    assert gateway.publish("node/a/status", b"not asked for").wait(5.0)
    assert gateway.publish("node/b/update", b"two").wait(5.0)

    first, second = receive(aggregator, 2)
    assert (first.topic, first.payload, first.retained) == ("node/a/update", b"one", False)
    assert (second.topic, second.payload) == ("node/b/update", b"two")
    assert receives_nothing(aggregator)


def test_connected_comes_first_and_says_whether_the_session_was_kept(world: World) -> None:
    link = world.link("gateway")
    link.start()
    first = link.events.get(timeout=10)
    assert isinstance(first, Connected)
    assert not first.session_present
    assert first.limits == link.limits
    assert link.is_up

    world.drop("gateway")
    assert isinstance(link.events.get(timeout=10), Disconnected)
    again = link.events.get(timeout=10)
    assert isinstance(again, Connected)
    assert again.session_present


def test_retained_messages_arrive_with_the_first_subscription_only(world: World) -> None:
    aggregator = up(world, "aggregator")
    assert aggregator.publish("model/manifest", b"v1", retain=True).wait(5.0)

    gateway = up(world, "gateway")
    gateway.subscribe("model/#")
    (manifest,) = receive(gateway, 1)
    assert (manifest.payload, manifest.retained) == (b"v1", True)
    settle(gateway)

    world.drop("gateway")
    wait_for(gateway, Connected)
    assert receives_nothing(gateway)
    gateway.subscribe("model/#")
    assert receives_nothing(gateway)


def test_a_message_that_was_retained_later_arrives_as_an_ordinary_one(world: World) -> None:
    gateway, aggregator = up(world, "gateway", "model/#"), up(world, "aggregator")
    assert aggregator.publish("model/manifest", b"v2", retain=True).wait(5.0)
    assert not receive(gateway, 1)[0].retained


def test_an_empty_retained_message_forgets_the_topic(world: World) -> None:
    aggregator = up(world, "aggregator")
    assert aggregator.publish("model/manifest", b"v1", retain=True).wait(5.0)
    assert aggregator.publish("model/manifest", b"", retain=True).wait(5.0)
    assert receives_nothing(up(world, "gateway", "model/#"))


def test_unsubscribing_stops_messages_and_subscribing_again_brings_the_retained(world: World) -> None:
    aggregator, gateway = up(world, "aggregator"), up(world, "gateway", "model/#")
    assert aggregator.publish("model/manifest", b"v1", retain=True).wait(5.0)
    receive(gateway, 1)

    gateway.unsubscribe("model/#")
    settle(gateway)
    assert aggregator.publish("model/manifest", b"v2", retain=True).wait(5.0)
    assert receives_nothing(gateway)

    gateway.subscribe("model/#")
    (manifest,) = receive(gateway, 1)
    assert (manifest.payload, manifest.retained) == (b"v2", True)


def test_unsubscribing_while_down_counts_when_the_link_is_back(world: World) -> None:
    gateway = up(world, "gateway", "command")
    world.stop()
    wait_for(gateway, Disconnected)
    gateway.unsubscribe("command")
    world.start()
    wait_for(gateway, Connected)
    assert gateway.publish("command", b"to myself").wait(5.0)
    assert receives_nothing(gateway)


def test_what_is_not_acknowledged_comes_again_after_a_reconnect(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    for payload in (b"1", b"2", b"3"):
        assert gateway.publish("update", payload).wait(5.0)
    first = receive(aggregator, 3, ack=False)
    aggregator.ack(first[0])
    settle(aggregator)

    world.drop("aggregator")
    wait_for(aggregator, Connected)
    assert payloads(receive(aggregator, 2)) == [b"2", b"3"]
    assert receives_nothing(aggregator)


def test_what_is_acknowledged_never_comes_again(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    assert gateway.publish("update", b"once").wait(5.0)
    receive(aggregator, 1)
    settle(aggregator)

    world.drop("aggregator")
    wait_for(aggregator, Connected)
    assert receives_nothing(aggregator)


def test_acknowledgements_of_a_former_connection_are_dropped(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    assert gateway.publish("update", b"first").wait(5.0)
    (former,) = receive(aggregator, 1, ack=False)
    world.drop("aggregator")
    wait_for(aggregator, Connected)
    (again,) = receive(aggregator, 1, ack=False)
    assert again.token != former.token

    aggregator.ack(former)
    settle(aggregator)
    world.drop("aggregator")
    wait_for(aggregator, Connected)
    assert payloads(receive(aggregator, 1)) == [b"first"]


def test_acknowledging_out_of_order_or_twice_is_harmless(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    numbers = [bytes([number]) for number in range(60)]
    for payload in numbers:
        assert gateway.publish("update", payload).wait(5.0)

    seen: list[bytes] = []
    while len(seen) < len(numbers):
        batch = receive(aggregator, min(10, len(numbers) - len(seen)), ack=False)
        seen += payloads(batch)
        for message in [*reversed(batch), batch[0]]:
            aggregator.ack(message)
    assert seen == numbers
    settle(aggregator)

    world.drop("aggregator")
    wait_for(aggregator, Connected)
    assert receives_nothing(aggregator)


def test_an_ack_waits_for_the_messages_before_it(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    for payload in (b"1", b"2"):
        assert gateway.publish("update", payload).wait(5.0)
    _, second = receive(aggregator, 2, ack=False)
    aggregator.ack(second)
    settle(aggregator)

    world.drop("aggregator")
    wait_for(aggregator, Connected)
    assert payloads(receive(aggregator, 2)) == [b"1", b"2"]


def test_the_receive_window_holds_messages_back_until_some_are_acknowledged(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    for number in range(100):
        assert gateway.publish("update", b"%d" % number).wait(5.0)
    messages = receive(aggregator, RECEIVE_MAXIMUM, ack=False)
    assert receives_nothing(aggregator)
    for message in messages:
        aggregator.ack(message)
    others = receive(aggregator, 100 - RECEIVE_MAXIMUM)
    assert payloads(messages + others) == [b"%d" % number for number in range(100)]


def test_messages_for_a_link_that_is_away_wait_for_it(world: World) -> None:
    aggregator, gateway = up(world, "aggregator", "update"), up(world, "gateway")
    aggregator.stop()
    assert gateway.publish("update", b"while you were away").wait(5.0)
    successor = up(world, "aggregator")
    assert payloads(receive(successor, 1)) == [b"while you were away"]


def test_what_is_not_to_be_queued_is_gone_when_the_link_comes_back(world: World) -> None:
    gateway, follower = up(world, "gateway"), up(world, "follower")
    follower.subscribe("live", queued=False)
    settle(follower)
    assert gateway.publish("live", b"heard").wait(5.0)
    assert payloads(receive(follower, 1)) == [b"heard"]
    follower.stop()
    assert gateway.publish("live", b"missed").wait(5.0)
    successor = up(world, "follower")
    assert receives_nothing(successor)
    assert gateway.publish("live", b"heard again").wait(5.0)


def test_a_message_above_the_limit_is_refused_before_it_is_sent(world: World) -> None:
    link = up(world, "gateway")
    size_bytes = link.limits.message_bytes
    with pytest.raises(LinkError, match=f"{size_bytes + 1} bytes"):
        link.publish("update", bytes(size_bytes + 1))
    assert link.publish("update", bytes(size_bytes)).wait(5.0)
    assert link.is_up


@pytest.mark.parametrize("topic", ["", "node/+/update", "node/#", "a\0b", "x" * 257])
def test_a_topic_that_no_broker_takes_is_refused(world: World, topic: str) -> None:
    link = up(world, "gateway")
    with pytest.raises(LinkError, match="is not a topic"):
        link.publish(topic, b"")


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "a/b#", "\0"])
def test_a_filter_that_no_broker_takes_is_refused(world: World, topic_filter: str) -> None:
    with pytest.raises(LinkError, match="is not a topic filter"):
        world.link("gateway").subscribe(topic_filter)


def test_nothing_is_sent_or_kept_while_the_link_is_down(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")
    world.stop()
    wait_for(gateway, Disconnected)
    assert not gateway.is_up
    with pytest.raises(LinkDownError):
        gateway.publish("update", b"lost?")

    world.start()
    wait_for(gateway, Connected)
    wait_for(aggregator, Connected)
    assert receives_nothing(aggregator)
    assert gateway.publish("update", b"found").wait(5.0)
    assert payloads(receive(aggregator, 1)) == [b"found"]


def test_a_link_that_was_never_started_is_down(world: World) -> None:
    with pytest.raises(LinkDownError):
        world.link("gateway").publish("update", b"")


def test_a_subscription_made_while_down_counts_when_the_link_is_up(world: World) -> None:
    gateway = up(world, "gateway")
    world.stop()
    wait_for(gateway, Disconnected)
    gateway.subscribe("command")
    world.start()
    wait_for(gateway, Connected)
    assert gateway.publish("command", b"to myself").wait(5.0)
    assert payloads(receive(gateway, 1)) == [b"to myself"]


def test_the_will_is_published_when_a_link_dies(world: World) -> None:
    aggregator = up(world, "aggregator", "status")
    gateway = up(world, "gateway", will=Will("status", b"gone"))
    world.drop("gateway")
    assert payloads(receive(aggregator, 1)) == [b"gone"]
    wait_for(gateway, Connected)


def test_no_will_is_published_after_a_goodbye(world: World) -> None:
    aggregator = up(world, "aggregator", "status")
    gateway = up(world, "gateway", will=Will("status", b"gone"))
    gateway.stop()
    assert isinstance(wait_for(gateway, Disconnected), Disconnected)
    assert not gateway.is_up
    assert receives_nothing(aggregator)


def test_stop_may_be_called_twice_and_before_start(world: World) -> None:
    idle = world.link("idle")
    idle.stop()
    link = up(world, "gateway")
    link.stop()
    link.stop()
    until(lambda: not link.is_up)


def test_many_threads_may_publish_at_once(world: World) -> None:
    gateway, aggregator = up(world, "gateway"), up(world, "aggregator", "update")

    def publish(name: bytes) -> None:
        for number in range(10):
            assert gateway.publish("update", name + b"%d" % number).wait(10.0)

    threads = [threading.Thread(target=publish, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    received: list[Received] = receive(aggregator, 30)
    for thread in threads:
        thread.join()
    assert sorted(payloads(received)) == sorted(n + b"%d" % i for n in (b"a", b"b", b"c") for i in range(10))
    for name in (b"a", b"b", b"c"):
        assert [p for p in payloads(received) if p.startswith(name)] == [name + b"%d" % i for i in range(10)]
