"""Every member is built, and so compared with float64 torch by the build's gate; it learns in both runtimes."""

from __future__ import annotations

import pytest

from fieldfold.task import Bundle
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime
from fieldfold.task.self_check import SEED
from fieldfold.task.torch_runtime import TorchRuntime
from tests.task.built import built
from tests.task.zoo.members import MEMBERS

STEPS = 30
RECURRENT = ("gru", "lstm", "lstm-both-ways")
MAX_BUNDLE_BYTES = 2 << 20

pytestmark = pytest.mark.timeout(900)  # a cold cache builds, on a busy machine


def learned(bundle: Bundle, runtime: Runtime) -> tuple[float, float]:
    """Loss on one batch before and after training on it."""
    manifest = bundle.manifest
    batch = Arrays.of(manifest.data).sample(manifest.batch_size, seed=SEED)
    first = bundle.initial_parameters()
    runtime.begin(first)
    for step in range(STEPS):
        runtime.step(batch, learning_rate=manifest.learning_rate.initial, seed=step)
    before, after = (runtime.evaluate(values, batch).loss for values in (first, runtime.parameters()))
    return before, after


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_is_built_and_learns_in_both_runtimes(name: str) -> None:
    bundle = built(name, MEMBERS[name])
    for runtime in (OnnxRuntime(bundle), TorchRuntime(bundle)):
        runtime.self_check()
        before, after = learned(bundle, runtime)
        assert after < before


@pytest.mark.parametrize("name", RECURRENT)
def test_windows_of_hundreds_of_steps_make_small_bundles(name: str) -> None:
    assert len(built(name, MEMBERS[name]).data) < MAX_BUNDLE_BYTES
