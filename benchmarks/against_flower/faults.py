"""What becomes of a run when a part of it is killed with kill -9, or a node sends what it should not."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import psutil

from benchmarks.against_flower.runs import BUNDLE, FOLDER, Flower, PacedFleet, flower
from benchmarks.against_flower.work import NODES, SLOW, Work
from examples.turbofan.fleet import FEDERATION
from fieldfold.codec import encode
from fieldfold.codec.floats import write_float32
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.probe import connected
from fieldfold.link.session import Received
from fieldfold.params import Vector
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import chunk_size, cut
from fieldfold.wire.messages import ClientUpdate, ModelManifest, Receipt, pack, read
from fieldfold.wire.topics import Topics

WORK = Work(seed=0, steps=10, run_s=1.0, straggler=False)
LONGER = Work(seed=0, steps=10, run_s=5.0, straggler=False)
"""So that a kill in the middle of a round is one in the middle of a run."""
BACK_AFTER_S = 1.0
"""A service manager starts what was killed again."""
WATCH_S = 120.0
LOOK_EVERY_S = 3.0
STATUS = re.compile(r'"status": "([^"]+)"')
ANSWER_S = 10.0
ROUNDS = 4
VERSIONS_BEFORE = 3
VERSIONS_AFTER = 10
CONTENTS = ("NaN", "wrong shape", "one value", "negative examples")


class Outcome(msgspec.Struct, frozen=True):
    """What was seen.

    Attributes:
        survives: whether the run went on to better models, or to its end with a sound one.
        waited_s: from the fault to the next model; None when there was none within WATCH_S.
        score: of the last model, in cycles; None when it is not finite.
    """

    fault: str
    survives: bool
    waited_s: float | None
    score: float | None
    seen: str


# -- Flower --------------------------------------------------------------------------------------------------------


def _wait_for_marks(running: Flower, count: int, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while len(running.marks()) < count and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return len(running.marks()) >= count


def _status(running: Flower) -> str:
    """What SuperLink says of the run."""
    found = STATUS.search(running.deployment.ask("ls", "--format", "json"))
    return found[1] if found else "unknown"


def _end_of(running: Flower, fault: str, at_s: float) -> Outcome:
    """Watches a run until its last round, until it is over, or for WATCH_S."""
    deadline_s = time.monotonic() + WATCH_S
    status = "unknown"
    while time.monotonic() < deadline_s and len(running.marks()) <= ROUNDS and not status.startswith("finished"):
        time.sleep(LOOK_EVERY_S)
        status = _status(running)
    marks = running.marks()
    score = marks[-1]["score"]
    sound = math.isfinite(score)
    later_s = [mark["at_s"] - at_s for mark in marks if mark["at_s"] > at_s]
    return Outcome(
        fault,
        survives=len(marks) > ROUNDS and sound,
        waited_s=later_s[0] if later_s else None,
        score=score if sound else None,
        seen=f"{len(marks) - 1} of {ROUNDS} rounds, {_status(running)}" + ("" if sound else ", the model is NaN"),
    )


def _kill_flower(fault: str, kill: Callable[[Flower], None], *options: str) -> Outcome:
    """A round is done, the next has begun, and something is killed."""
    with flower(*options) as running:
        running.submit(LONGER, ROUNDS)
        _wait_for_marks(running, 2, WATCH_S)
        _wait_for_process(running, "flwr-clientapp")
        time.sleep(BACK_AFTER_S)
        at_s = time.time()
        kill(running)
        return _end_of(running, fault, at_s)


def _process(running: Flower, program: str) -> psutil.Process | None:
    for process in running.deployment.look():
        try:
            if any(program in word for word in process.cmdline()[:2]):
                return process
        except psutil.Error:
            continue
    return None


def _wait_for_process(running: Flower, program: str) -> None:
    deadline_s = time.monotonic() + WATCH_S
    while _process(running, program) is None and time.monotonic() < deadline_s:
        time.sleep(0.1)


def _kill_link(options: tuple[str, ...]) -> Callable[[Flower], None]:
    def kill(running: Flower) -> None:
        running.deployment.kill("superlink")
        time.sleep(BACK_AFTER_S)
        running.deployment.start_link(*options)

    return kill


def _kill_node(running: Flower) -> None:
    running.deployment.kill(NODES[0])
    time.sleep(BACK_AFTER_S)
    running.start_node(NODES[0])


def _kill_app(program: str) -> Callable[[Flower], None]:
    def kill(running: Flower) -> None:
        if (process := _process(running, program)) is not None:
            process.kill()

    return kill


def flower_faults() -> list[Outcome]:
    """Every fault, each in a deployment of its own."""
    database = FOLDER.resolve() / "superlink.sqlite"
    database.unlink(missing_ok=True)
    kept = ("--database", str(database))
    found = [
        _kill_flower("kill -9 of SuperLink, started again", _kill_link(kept), *kept),
        _kill_flower("kill -9 of the ServerApp", _kill_app("flwr-serverapp")),
        _kill_flower("kill -9 of a SuperNode, started again", _kill_node),
        _kill_flower("kill -9 of a ClientApp", _kill_app("flwr-clientapp")),
    ]
    for content in CONTENTS:
        with flower() as running:
            running.submit(WORK, ROUNDS, fault=content)
            _wait_for_marks(running, 2, WATCH_S)
            found.append(_end_of(running, content, time.time()))
    return found


# -- fieldfold -----------------------------------------------------------------------------------------------------


def _version(fleet: PacedFleet) -> int:
    status = fleet.aggregator_status()
    return -1 if status is None or status["version"] is None else int(status["version"])


def _wait_for_version(fleet: PacedFleet, version: int) -> bool:
    deadline_s = time.monotonic() + WATCH_S
    while _version(fleet) < version and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return _version(fleet) >= version


def _goes_on(fleet: PacedFleet, fault: str, at_s: float, before: int, seen: str = "") -> Outcome:
    first = _wait_for_version(fleet, before + 1)
    waited_s = time.time() - at_s if first else None
    all_of_them = _wait_for_version(fleet, before + VERSIONS_AFTER)
    status = fleet.aggregator_status() or {"score": None, "rejected": 0, "nodes_online": 0, "version": None}
    said = f"version {status['version']}, {status['rejected']} rejected, {status['nodes_online']} online"
    return Outcome(
        fault,
        survives=first and all_of_them and status["score"] is not None,
        waited_s=waited_s,
        score=status["score"],
        seen=f"{said}{seen and ': '}{seen}",
    )


def _kill_ours(fleet: PacedFleet, name: str, start: Callable[[], None]) -> Outcome:
    before, at_s = _version(fleet), time.time()
    fleet.kill(name)
    time.sleep(BACK_AFTER_S)
    start()
    said = "a node" if name in NODES else f"the {name}"
    return _goes_on(fleet, f"kill -9 of {said}, started again", at_s, before)


def _spoilt(content: str, manifest: ModelManifest) -> ClientUpdate:
    """An update of SLOW, whose own program has been ended."""
    delta, examples = np.zeros(Bundle.read(BUNDLE).manifest.layout.num_params, np.float32), 1000
    match content:
        case "NaN":
            delta[:] = np.nan
        case "wrong shape":
            delta = delta[:-1]
        case "one value":
            delta = delta[:1]
        case _:
            examples = -examples
    return ClientUpdate(
        node=SLOW,
        sequence=1_000_000 + CONTENTS.index(content),
        run=bytes.fromhex(manifest.run),
        base_version=manifest.version,
        num_examples=examples,
        num_steps=WORK.steps,
        train_loss=0.1,
        trained_norm=1.0,
        base_score=(1.0, 1),
        base_loss=0.5,
        class_scores=(),
        payload=_unchecked(delta),
    )


def _unchecked(delta: Vector) -> bytes:
    """The lossless payload of any values, also of those that the codec refuses to send."""
    sound = np.ones_like(delta)
    body = b"".join(write_float32(sound))
    return encode(sound, "lossless").removesuffix(body) + b"".join(write_float32(delta))


def _next(link: MqttLink, topic: str) -> bytes:
    """The next message of that topic."""
    while True:
        event = link.events.get(timeout=ANSWER_S)
        if isinstance(event, Received):
            link.ack(event)
            if event.topic == topic:
                return event.payload


def _send(fleet: PacedFleet, content: str) -> Outcome:
    """Sends it with the node's own certificate, and reads the receipt."""
    topics, before, at_s = Topics(FEDERATION), _version(fleet), time.time()
    with connected(fleet.link_config(SLOW), f"{SLOW}-spoilt", Path()) as link:
        link.subscribe(topics.model_manifest)
        update = _spoilt(content, read(ModelManifest, _next(link, topics.model_manifest)))
        link.subscribe(topics.receipt(SLOW))
        for piece in cut(pack(update), chunk_size(link.limits.message_bytes)):
            link.publish(topics.update(SLOW), piece)
        receipt = read(Receipt, _next(link, topics.receipt(SLOW)))
    return _goes_on(fleet, content, at_s, before, f"{receipt.decision}, {receipt.reason}")


def fieldfold_faults() -> list[Outcome]:
    """Every fault, one after the other in one fleet."""
    with ExitStack() as stack:
        fleet = stack.enter_context(PacedFleet(WORK))
        fleet.begin(stack)
        _wait_for_version(fleet, VERSIONS_BEFORE)
        found = [
            _kill_ours(fleet, "aggregator", fleet.start_aggregator),
            _kill_ours(fleet, "broker", fleet.start_broker_again),
            _kill_ours(fleet, NODES[0], lambda: fleet.start_node(NODES[0])),
        ]
        fleet.end(SLOW)
        return found + [_send(fleet, content) for content in CONTENTS]
