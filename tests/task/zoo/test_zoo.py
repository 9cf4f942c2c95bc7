"""Every member is built, compared with float64 torch by the build's gate, and trained in both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from fieldfold.task import Bundle
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime
from fieldfold.task.self_check import SEED
from fieldfold.task.torch_runtime import TorchRuntime
from tests.task.zoo.bundles import bundle_of
from tests.task.zoo.members import MEMBERS

STEPS = 30
RECURRENT = ("gru", "lstm", "lstm-both-ways")
MAX_BUNDLE_BYTES = 2 << 20

pytestmark = pytest.mark.timeout(300)  # a cold cache builds


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
    bundle = bundle_of(name)
    for runtime in (OnnxRuntime(bundle), TorchRuntime(bundle)):
        runtime.self_check()
        before, after = learned(bundle, runtime)
        assert after < before


@pytest.mark.parametrize("name", RECURRENT)
def test_windows_of_hundreds_of_steps_make_small_bundles(name: str) -> None:
    assert len(bundle_of(name).data) < MAX_BUNDLE_BYTES


@pytest.mark.parametrize("name", MEMBERS)
def test_the_two_runtimes_agree_on_what_they_predict(name: str) -> None:
    bundle = bundle_of(name)
    batch = Arrays.of(bundle.manifest.data).sample(5, seed=2)
    parameters = bundle.initial_parameters()
    inputs = {array.name: batch[array.name] for array in bundle.manifest.inputs}
    found = [runtime.predict(parameters, inputs) for runtime in (OnnxRuntime(bundle), TorchRuntime(bundle))]
    for output, values in found[0].items():
        np.testing.assert_allclose(values, found[1][output], rtol=1e-3, atol=1e-5)
