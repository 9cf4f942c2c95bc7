"""A prediction graph with its parameters in it gives what the runtime gives that is told them each time."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from fieldfold.errors import BundleError
from fieldfold.task.baked import predict_with
from fieldfold.task.bundle import Bundle
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.self_check import read_batch


def test_it_takes_a_batch_alone_and_predicts_the_same(each_bundle: Bundle) -> None:
    values = each_bundle.initial_parameters() + np.float32(0.01)
    data = predict_with(each_bundle, values)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [array.name for array in each_bundle.manifest.inputs]
    assert [each.name for each in session.get_inputs()] == names
    assert session.get_overridable_initializers() == []
    batch = {name: read_batch(each_bundle)[name] for name in names}
    expected = OnnxRuntime(each_bundle).predict(values, batch)
    for array, found in zip(each_bundle.manifest.outputs, session.run(None, batch), strict=True):
        np.testing.assert_allclose(found, expected[array.name], rtol=1e-5, atol=1e-6)


class Hostile(Bundle):
    """A bundle whose prediction graph is something else."""

    graph = b""

    def section(self, name: str) -> bytes:
        return self.graph if name == "predict.onnx" else super().section(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", [b"", b"\xff" * 20, b"\x3a\x05\x5a\xff\x01", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b"])
def test_what_is_no_graph_is_refused(mlp_bundle: Bundle, graph: bytes) -> None:
    hostile = Hostile(mlp_bundle.data, mlp_bundle.manifest, mlp_bundle._body)
    hostile.graph = graph
    with pytest.raises(BundleError, match="prediction graph is no ONNX model"):
        predict_with(hostile, mlp_bundle.initial_parameters())


def test_a_model_that_stays_in_part_on_the_gateways_is_no_file(mlp_bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(mlp_bundle.manifest, local=mlp_bundle.manifest.layout)
    with pytest.raises(BundleError, match="on the gateways: no file elsewhere holds a whole model"):
        predict_with(Bundle(mlp_bundle.data, manifest, mlp_bundle._body), mlp_bundle.initial_parameters())
