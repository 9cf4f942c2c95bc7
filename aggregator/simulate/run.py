"""One method, one seed, from the first local run to the end of the scenario."""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from aggregator.deltas import remember
from aggregator.fold.contribution import Contribution
from aggregator.release.model import SNAPSHOT_PROFILE, advance
from aggregator.simulate import attacks
from aggregator.simulate.fleet import draw, luck, switched_on_at
from aggregator.simulate.partition import Indices, deal
from aggregator.simulate.scenario import MethodConfig
from aggregator.simulate.workers import Run, Scores, Trained, Workers, encoded
from fieldfold.params import Vector
from fieldfold.task.local_training import run_seed

BYTES_PER_PARAMETER = 4
SNAPSHOT_BYTES_PER_PARAMETER = 3
"""About what a snapshot without loss takes; whoever missed so many versions that their deltas are more takes one."""
NORMS_REMEMBERED = 64
RUN_NAME = "00" * 8
FRESH_LIES = 10
"""Lies that are computed from what all honest nodes sent are computed anew after so many updates."""

Kind: TypeAlias = Literal["start", "trained", "arrived", "patience"]


class Point(msgspec.Struct, frozen=True):
    """A score. `slow_only` is that over the classes that only slow nodes hold, where there are some."""

    at_s: float
    updates: int
    version: int
    overall: float
    slow_only: float | None


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        stale, too_long: updates that were refused, by the reason.
        lost: runs that were lost on their node.
        float32_bytes: what the updates would have taken uncompressed.
    """

    method: str
    seed: int
    points: tuple[Point, ...]
    updates: int
    versions: int
    stale: int
    too_long: int
    lost: int
    bytes_up: int
    bytes_down: int
    float32_bytes: int
    seconds: float


class Event(NamedTuple):
    """Something that happens; of two at one moment the one that was planned first. `mark` is the node's run."""

    at_s: float
    order: int
    kind: Kind
    node: int
    mark: int
    sent: Trained | None = None


class Simulation:
    """The present state of one run; `run` brings it to its end."""

    def __init__(self, method: MethodConfig, seed: int, workers: Workers) -> None:
        self._name, self._fold, self._seed, self._workers = method.name, method.fold, seed, workers
        self._scenario = scenario = workers.scenario
        self._manifest = workers.bundle.manifest
        self._fleet = draw(scenario, seed)
        self._windows: list[Indices] = deal(
            workers.data.holdings, scenario.partition, self._fleet.is_slow, self._manifest.batch_size, seed
        )
        self._state: Any = method.fold.init()
        self._exact = workers.bundle.initial_parameters()
        self._released = {0: self._exact.copy()}
        self._release_bytes: list[int] = [0]
        self._version = 0
        self._norms: tuple[float, ...] = ()
        self._order = itertools.count()
        self._events: list[Event] = []
        self._runs = [0] * scenario.nodes
        self._base = [0] * scenario.nodes
        self._last_base = [-1] * scenario.nodes
        self._training: dict[int, Future[Trained]] = {}
        self._waiting: set[int] = set()
        self._residuals: dict[int, Vector] = {}
        self._sent: dict[int, Vector] = {}
        self._lie: tuple[int, Vector] | None = None
        self._points: list[tuple[float, int, int, Future[Scores]]] = []
        self._updates = self._stale = self._too_long = self._lost = self._bytes_up = self._bytes_down = 0

    def run(self, told: Callable[[float, int], None]) -> Outcome:
        """Until the scenario ends it; `told` hears virtual seconds and updates now and then."""
        for node in range(self._scenario.nodes):
            self._plan("start", 0.0, node)
        score_at_s, now_s = 0.0, 0.0
        while self._events and not self._is_over(self._events[0].at_s):
            event = heapq.heappop(self._events)
            now_s = event.at_s
            while score_at_s <= now_s:
                self._score(score_at_s)
                score_at_s += self._scenario.score_every_s
            self._happens(event)
            told(now_s, self._updates)
        self._score(now_s)
        for future in self._training.values():
            future.cancel()
        return self._outcome(now_s)

    def _is_over(self, now_s: float) -> bool:
        wanted = self._scenario
        return bool(
            (wanted.until_s and now_s > wanted.until_s) or (wanted.updates and self._updates >= wanted.updates)
        )

    def _plan(self, kind: Kind, at_s: float, node: int, sent: Trained | None = None) -> None:
        heapq.heappush(self._events, Event(at_s, next(self._order), kind, node, self._runs[node], sent))

    def _happens(self, event: Event) -> None:
        if event.mark != self._runs[event.node]:
            return  # it waited for something that has come meanwhile
        if event.kind == "start":
            self._start(event.at_s, event.node)
        elif event.kind == "trained":
            self._send(event.at_s, event.node)
        elif event.kind == "arrived" and event.sent is not None:
            self._arrives(event.at_s, event.node, event.sent)
        elif event.node in self._waiting:
            self._waiting.discard(event.node)
            self._plan("start", event.at_s, event.node)

    # -- a node ------------------------------------------------------------------------------------------------------

    def _start(self, now_s: float, node: int) -> None:
        """Begins a run from the version that the node has pulled."""
        there_at_s = switched_on_at(now_s, self._fleet.day_begins_s[node], self._scenario.availability)
        if there_at_s > now_s:
            self._plan("start", there_at_s, node)
            return
        self._runs[node] += 1
        spread, chance = luck(self._seed, node, self._runs[node])
        takes_s = float(self._fleet.update_s[node] * np.exp(spread * self._scenario.speed.jitter))
        if chance < self._scenario.availability.drop_out:
            self._lost += 1
            self._plan("start", now_s + takes_s + self._scenario.availability.away_s, node)
            return
        steps = self._scenario.steps or self._manifest.local_steps
        longest_s = self._scenario.speed.longest_s
        if longest_s and takes_s > longest_s:
            steps, takes_s = max(1, int(steps * longest_s / takes_s)), max(longest_s, takes_s / steps)
        kind, base = self._scenario.attack.kind, self._base[node]
        self._training[node] = self._workers.train(
            Run(
                self._released[base],
                base,
                self._windows[node],
                steps,
                self._run_seed(node),
                relabelled=kind == "label-flip" and bool(self._fleet.is_lying[node]),
                residual=self._residuals.get(node),
                tell=kind not in {"none", "label-flip"},
            )
        )
        self._plan("trained", now_s + takes_s, node)

    def _send(self, now_s: float, node: int) -> None:
        trained = self._training.pop(node).result()
        if trained.delta is not None and self._fleet.is_lying[node]:
            lie = self._lies(node, trained.delta)
            trained = encoded(
                self._scenario, self._workers.bundle, lie, self._residuals.get(node), self._run_seed(node)
            )
        elif trained.delta is not None:
            self._sent[node] = trained.delta
        if trained.residual is not None:
            self._residuals[node] = trained.residual
        self._bytes_up += len(trained.payload)
        upload_s = len(trained.payload) / float(self._fleet.up_bytes_s[node])
        if self._fleet.is_false[node]:
            trained = trained._replace(loss=attacks.FALSE_LOSSES[self._scenario.attack.vote])
        self._plan("arrived", now_s + self._scenario.link.delay_s + upload_s, node, trained)

    def _run_seed(self, node: int) -> int:
        return run_seed(str(node), self._seed, self._base[node], self._runs[node])

    def _lies(self, node: int, own: Vector) -> Vector:
        kind = self._scenario.attack.kind
        if kind == "sign-flip":
            return attacks.sign_flip(own)
        if kind == "noise":
            return attacks.noise(own, np.random.default_rng([self._seed, node, self._runs[node]]))
        if not self._sent:
            return own
        if kind in {"alie", "min-max"}:
            if self._lie is None or self._updates - self._lie[0] >= FRESH_LIES:
                honest = np.stack([self._sent[each] for each in sorted(self._sent)])
                self._lie = self._updates, (attacks.alie if kind == "alie" else attacks.min_max)(honest)
            return self._lie[1]
        honest_nodes = np.flatnonzero(~self._fleet.is_lying)
        by_pace = honest_nodes[np.argsort(self._fleet.update_s[honest_nodes])]
        return self._sent.get(int(by_pace[-1] if kind == "mimic-slow" else by_pace[0]), own)

    def _goes_on(self, now_s: float, node: int) -> None:
        """After its update: with the newest version, or, where that is the one it had, when there is another."""
        if self._version > self._base[node]:
            self._pull(now_s, node)
            return
        self._waiting.add(node)
        self._plan("patience", now_s + self._scenario.wait_for_version_s, node)

    def _pull(self, now_s: float, node: int) -> None:
        missed = sum(self._release_bytes[self._base[node] + 1 :])
        size = min(missed, SNAPSHOT_BYTES_PER_PARAMETER * self._manifest.layout.num_params)
        self._bytes_down += size
        self._base[node] = self._version
        download_s = size / float(self._fleet.down_bytes_s[node])
        self._plan("start", now_s + self._scenario.link.delay_s + download_s, node)

    # -- the aggregator ----------------------------------------------------------------------------------------------

    def _arrives(self, now_s: float, node: int, sent: Trained) -> None:
        self._updates += 1
        base = self._base[node]
        staleness = self._version - base
        num_params = self._manifest.layout.num_params
        length = remember(sent.payload, num_params).norm()
        limit = self._fold.max_staleness
        typical = statistics.median_low(self._norms) if self._norms else None
        if limit is not None and staleness > limit:
            self._stale += 1
        elif typical is not None and length > self._scenario.max_norm * max(1.0, typical):
            self._too_long += 1
        else:
            self._norms = (*self._norms, length)[-NORMS_REMEMBERED:]
            drift = self._released[self._version] - self._released[base] if self._fold.needs_drift else None
            contribution = Contribution(
                node=f"{node:05}",
                payload=sent.payload,
                staleness=staleness,
                num_examples=len(self._windows[node]),
                norm=length,
                drift=drift,
                trained_norm=min(sent.norm, length),
                loss=sent.loss,
            )
            self._folds(now_s, contribution, num_params)
        self._goes_on(now_s, node)

    def _folds(self, now_s: float, contribution: Contribution, num_params: int) -> None:
        self._state, step = self._fold.fold(self._state, contribution, num_params)
        if step is None:
            return
        self._exact = self._exact + step.update
        before = self._released[self._version]
        profile = SNAPSHOT_PROFILE if step.lossless else self._scenario.release.profile
        release = advance(self._exact, before, self._version, RUN_NAME, profile)
        self._version = release.version
        self._released[self._version] = release.released
        self._release_bytes.append(len(release.delta))
        waiting, self._waiting = sorted(self._waiting), set()
        for node in waiting:
            self._pull(now_s, node)
        in_use = {*self._base, self._version}
        for version in [each for each in self._released if each not in in_use]:
            del self._released[version]

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _score(self, at_s: float) -> None:
        scored = self._workers.score(self._released[self._version])
        self._points.append((at_s, self._updates, self._version, scored))

    def _outcome(self, seconds: float) -> Outcome:
        points = tuple(
            Point(at_s, updates, version, scored.result().overall, scored.result().slow_only)
            for at_s, updates, version, scored in self._points
        )
        return Outcome(
            method=self._name,
            seed=self._seed,
            points=points,
            updates=self._updates,
            versions=self._version,
            stale=self._stale,
            too_long=self._too_long,
            lost=self._lost,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
            float32_bytes=self._updates * BYTES_PER_PARAMETER * self._manifest.layout.num_params,
            seconds=seconds,
        )
