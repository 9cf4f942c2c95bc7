"""What decides, without a broker: topic filters, limits, pace, window, order of acknowledgements, reconnecting."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.errors import LinkDownError
from fieldfold.link import reasons
from fieldfold.link.acks import AckBook
from fieldfold.link.limits import HEADER_ROOM_BYTES, broker_limits
from fieldfold.link.pace import Pace
from fieldfold.link.reconnect import Outcome, ProtocolChoice, Retries, backoff_s
from fieldfold.link.subscriptions import Subscription, Subscriptions
from fieldfold.link.topic_filter import matches
from fieldfold.link.window import SendWindow

LEVELS = st.lists(st.sampled_from(["a", "b", "node", ""]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("+/b", "a/b", True),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("A", "a", False),
    ],
)
def test_topic_filters_match_as_the_standard_says(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@given(levels=LEVELS, data=st.data())
def test_replacing_levels_by_plus_or_a_tail_by_hash_still_matches(levels: list[str], data: st.DataObject) -> None:
    topic = "/".join(levels)
    wildcards = [data.draw(st.booleans()) for _ in levels]
    assert matches("/".join("+" if wild else level for wild, level in zip(wildcards, levels, strict=True)), topic)
    kept = data.draw(st.integers(0, len(levels)))
    assert matches("/".join([*levels[:kept], "#"]), topic)
    assert not matches(topic + "/more", topic)


@given(order=st.permutations(range(8)), repeats=st.lists(st.integers(0, 20)))
def test_acknowledgements_leave_once_and_in_order_of_receipt(order: list[int], repeats: list[int]) -> None:
    book = AckBook()
    for token in range(8):
        book.receive(token, 100 + token)
    left = list(itertools.chain.from_iterable(book.settle(token) for token in [*order, *repeats]))
    assert left == [100 + token for token in range(8)]
    assert book.open_tokens == []


def test_an_unknown_token_acknowledges_nothing() -> None:
    book = AckBook()
    book.receive(1, 7)
    assert book.settle(99) == []
    assert book.open_tokens == [1]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_burst_of_a_second_goes_at_once_and_then_the_rate_holds() -> None:
    pace = Pace(10, 1e9, Clock())
    waits = [pace.reserve(1, 60.0) for _ in range(20)]
    assert waits[:10] == [0.0] * 10
    assert waits[10:] == pytest.approx([0.1 * number for number in range(1, 11)])


def test_bytes_are_paced_and_a_message_larger_than_a_second_passes() -> None:
    clock = Clock()
    pace = Pace(1e9, 1000, clock)
    assert pace.reserve(3000, 60.0) == pytest.approx(2.0)
    clock.now_s = 2.0
    assert pace.reserve(500, 60.0) == pytest.approx(0.5)


def test_a_wait_beyond_the_patience_books_nothing() -> None:
    pace = Pace(1, 1e9, Clock())
    assert pace.reserve(1, 0.0) == 0.0
    assert pace.reserve(1, 0.5) is None
    assert pace.reserve(1, 1.0) == pytest.approx(1.0)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=40),
    gaps_s=st.lists(st.floats(0, 3), min_size=40, max_size=40),
)
def test_no_interval_carries_more_than_its_rate_and_one_burst(sizes: list[int], gaps_s: list[float]) -> None:
    clock = Clock()
    pace = Pace(1e9, 1000, clock)
    sent_s: list[float] = []
    for size, gap_s in zip(sizes, gaps_s, strict=False):
        wait_s = pace.reserve(size, 1e9)
        assert wait_s is not None
        clock.now_s += wait_s
        sent_s.append(clock.now_s)
        clock.now_s += gap_s
    for first in range(len(sent_s)):
        carried = 0
        for size, at_s in zip(sizes[first + 1 :], sent_s[first + 1 :], strict=True):
            carried += size
            assert carried <= 1000 + 1000 * (at_s - sent_s[first]) + 1e-3


def _window(size: int) -> tuple[SendWindow, list[tuple[str, int]]]:
    refusals: list[tuple[str, int]] = []
    window = SendWindow(lambda topic, code: refusals.append((topic, code)))
    window.open(size)
    return window, refusals


def test_a_full_window_opens_with_each_acknowledgement() -> None:
    window, _ = _window(1)
    window.enter(0.0)
    flight = window.launch(1, "t")
    with pytest.raises(LinkDownError, match="acknowledged none of 1"):
        window.enter(0.01)
    window.settle(1, 0)
    assert flight.wait(0.0)
    window.enter(0.0)


def test_an_acknowledgement_may_overtake_the_launch() -> None:
    window, _ = _window(1)
    window.enter(0.0)
    window.settle(1, 0x10)
    assert window.launch(1, "t").wait(0.0)
    window.enter(0.0)


def test_a_refused_message_is_told_and_not_delivered() -> None:
    window, refusals = _window(1)
    window.enter(0.0)
    flight = window.launch(1, "t")
    window.settle(1, 0x87)
    assert not flight.wait(0.0)
    assert refusals == [("t", 0x87)]


def test_closing_fails_the_flights_and_those_who_wait() -> None:
    window, _ = _window(1)
    window.enter(0.0)
    flight = window.launch(1, "t")
    threading.Timer(0.05, window.close).start()
    with pytest.raises(LinkDownError):
        window.enter(10.0)
    assert not flight.wait(10.0)
    with pytest.raises(LinkDownError):
        window.pause(10.0)
    assert not window.launch(2, "t").wait(0.0)


def test_the_smaller_of_our_limit_and_the_brokers_holds() -> None:
    assert broker_limits(61_440, "5").message_bytes == 61_440
    assert broker_limits(61_440, "5", maximum_packet_bytes=131_072).message_bytes == 61_440
    assert broker_limits(61_440, "5", maximum_packet_bytes=20_480).message_bytes == 20_480 - HEADER_ROOM_BYTES
    assert broker_limits(61_440, "5", maximum_packet_bytes=10).message_bytes == 0


def test_what_connack_leaves_open_is_what_the_standard_says() -> None:
    assert broker_limits(61_440, "5").receive_maximum == 65_535
    assert broker_limits(61_440, "3.1.1").receive_maximum == 20
    assert broker_limits(61_440, "3.1.1", maximum_packet_bytes=10).message_bytes == 61_440


def test_waits_double_up_to_a_minute_and_are_spread() -> None:
    assert [backoff_s(failures, 0.0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_s(10**6, 0.0) == 60
    assert backoff_s(3, 0.999) == pytest.approx(2.0, rel=0.01)


def test_only_a_session_that_outlives_the_wait_starts_the_count_afresh() -> None:
    retries = Retries()
    for _ in range(4):
        retries.note(Outcome.UNREACHABLE, 0.0)
    assert retries.wait_s(0.0) == 8
    retries.note(Outcome.UP, 7.0)
    assert retries.wait_s(0.0) == 16
    retries.note(Outcome.UP, 17.0)
    assert retries.wait_s(0.0) == 1


def test_sessions_that_keep_ending_early_are_reported_once() -> None:
    retries = Retries()
    retries.note(Outcome.UP, 3600.0)
    told = []
    for _ in range(6):
        retries.note(Outcome.UP, 0.1)
        told.append(retries.looks_cloned)
    assert told == [False, True, False, False, False, False]


def test_a_failure_in_between_is_no_sign_of_a_clone() -> None:
    retries = Retries()
    for _ in range(6):
        retries.note(Outcome.UNREACHABLE, 0.0)
        retries.note(Outcome.UP, 0.1)
        assert not retries.looks_cloned


def test_after_a_takeover_the_other_one_is_left_alone_for_a_while() -> None:
    retries = Retries()
    retries.note(Outcome.TAKEN_OVER, 3600.0)
    assert retries.wait_s(0.0) == 30
    assert 30 < retries.wait_s(0.999) < 60, "two that wait must not meet"
    retries.note(Outcome.UP, 3600.0)
    assert retries.wait_s(0.0) == 1


def test_what_passes_by_itself_is_no_refusal_and_what_stays_is() -> None:
    assert reasons.connect_refused(0x88, "Server unavailable", "host:8883") is None
    banned = reasons.connect_refused(0x8A, "Banned", "host:8883")
    assert banned is not None
    assert banned.reason == "host:8883 refused the connection: banned"
    assert reasons.session_ended(0x8B, "Server shutting down", "press-07") is None
    clone = reasons.session_ended(0x8E, "Session taken over", "press-07")
    assert clone is not None
    assert "another program connected as press-07" in clone.reason
    assert clone.lasting, "that a connection came up again does not show that it is over"
    assert "quota" in reasons.publish_refused("t", 0x97).reason
    assert "0x99" in reasons.publish_refused("t", 0x99).reason


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome.UNREACHABLE] * 5, "5"),
        ([Outcome.REFUSED] * 5, "5"),
        ([Outcome.UNANSWERED], "5"),
        ([Outcome.UNANSWERED] * 2, "3.1.1"),
        ([Outcome.UNANSWERED, Outcome.UNREACHABLE, Outcome.UNANSWERED], "5"),
        ([Outcome.UNANSWERED] * 4, "5"),
        ([Outcome.UNSUPPORTED], "3.1.1"),
        ([Outcome.UP, *[Outcome.UNANSWERED] * 9], "5"),
        ([Outcome.UNSUPPORTED, Outcome.UP, *[Outcome.UNANSWERED] * 9], "3.1.1"),
    ],
)
def test_the_older_protocol_is_for_brokers_that_speak_no_other(outcomes: list[Outcome], expected: str) -> None:
    choice = ProtocolChoice()
    for outcome in outcomes:
        choice.note(outcome)
    assert choice.protocol == expected


def test_mqtt_3_does_not_repeat_what_the_session_holds_and_mqtt_5_may() -> None:
    subscriptions = Subscriptions()
    held, asked = Subscription("held", queued=True), Subscription("asked", queued=False)
    subscriptions.add(held, sent=True)
    subscriptions.grant("held")
    subscriptions.add(asked, sent=True)
    assert subscriptions.due("5", session_present=True) == ([], [held, asked])
    assert subscriptions.due("3.1.1", session_present=True) == ([], [asked])
    assert subscriptions.due("3.1.1", session_present=False) == ([], [held, asked])


def test_a_filter_dropped_while_away_is_unsubscribed_even_when_it_is_wanted_again() -> None:
    subscriptions = Subscriptions()
    wanted = Subscription("t", queued=True)
    subscriptions.add(wanted, sent=True)
    subscriptions.remove("t")
    subscriptions.add(wanted, sent=False)
    assert subscriptions.due("5", session_present=True) == (["t"], [wanted])
    assert subscriptions.due("5", session_present=True) == ([], [wanted])
