"""Ditto (Li, Hu, Beirami and Smith, ICML 2021): a model of the gateway's own beside the fleet's. It never leaves."""

from __future__ import annotations

import logging

import msgspec

from fieldfold.errors import DataError
from fieldfold.params import Vector
from fieldfold.sensors.windows import Windows
from fieldfold.task import open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import Gate, Plan, train_locally
from fieldfold.task.runtime import Runtime
from node_app.adopt import Served
from node_app.config import TrainingConfig
from node_app.follow import Model

log = logging.getLogger(__name__)


class Personal:
    """The personal model v of one task and run; the updates know nothing of it. One thread owns it.

    Each run of the gateway is followed by as many steps of v <- v - eta (grad F(v) + lambda (v - w)), through the
    task's own optimizer and clipping; w is the version that the gateway's run began from, and lambda takes the place
    of FedProx's mu. v is a whole model: where the task keeps parameters local, it has some of its own, which nothing
    pulls, as nothing pulls the statistics of BatchNorm.

    Attributes:
        is_on: whether lambda is above 0.
        model: v under the version that pulled it last; None before its first run.
    """

    def __init__(self, bundle: Bundle, config: TrainingConfig) -> None:
        self._bundle, self._config = bundle, config
        self._apart: Runtime | None = None
        self._has_diverged = False
        self.is_on = config.personal > 0
        self.model: Served | None = None

    @property
    def score(self) -> float | None:
        """Its deciding metric on this gateway's own validation data."""
        return None if self.model is None else self.model.score

    def train(  # noqa: PLR0913, PLR0917 -- a run is these
        self, runtime: Runtime, released: Model, local: Vector, windows: Windows, plan: Plan, gate: Gate
    ) -> Served | None:
        """The model after a run, without a score; None when the gate ended it, or it left the finite numbers.

        It begins as `released` with the gateway's `local` values, and begins so again after it has diverged.

        Raises:
            BundleError: when the runtime fails.
        """
        start = self.model or Served(released.version, released.parameters, local, None, personal=True)
        plan = msgspec.structs.replace(plan, proximal=self._config.personal, noise_std=0.0)
        runtime = self._runtime(runtime)
        try:
            result = train_locally(
                runtime, start.parameters, start.local, windows, plan, Aside(gate), anchor=released.parameters
            )
        except DataError as error:
            if not self._has_diverged:
                log.warning("the personal model begins anew; lower training.personal: %s", error.reason)
            self._has_diverged, self.model = True, None
            return None
        if result is None:
            return None
        return Served(released.version, runtime.parameters(), result.local, None, personal=True)

    def _runtime(self, shared: Runtime) -> Runtime:
        """One of its own where the optimizer's state outlives a run: the other one's is that of the updates."""
        if not self._config.keep_optimizer:
            return shared
        if self._apart is None:
            self._apart = open_runtime(self._bundle, self._config.runtime_settings())
        return self._apart


class Aside:
    """A gate that passes on nothing of how a run goes: the loss that is shown and told is that of the updates."""

    def __init__(self, gate: Gate) -> None:
        self.passes = gate.passes

    def stepped(self, step: int, of: int, loss: float) -> None:
        """See Gate."""
