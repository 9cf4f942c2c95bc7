"""Bundles that somebody made to do harm: each is refused with one clear line, before or in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fieldfold.errors import BundleError
from fieldfold.sensors.arrays import Array
from fieldfold.task import Bundle, RuntimeSettings, open_runtime
from fieldfold.task.bundle import SECTION_NAMES, pack
from fieldfold.task.manifest import SectionName
from fieldfold.task.onnx_form import check_form
from fieldfold.task.program import Step, decode, encode
from fieldfold.task.trial import Limits, try_out

LOADED_AFTER_S = 2.0  # of processor time
ONNX = RuntimeSettings(runtime="onnx")
TORCH = RuntimeSettings(runtime="torch", device="cpu")


def replaced(bundle: Bundle, sections: dict[SectionName, bytes], **manifest: Any) -> Bundle:
    """The bundle with other sections and another manifest, every digest put right."""
    all_sections: dict[SectionName, bytes] = {name: bundle.section(name) for name in SECTION_NAMES}
    changed = msgspec.structs.replace(bundle.manifest, **manifest)
    return Bundle.from_bytes(pack(changed, all_sections | sections))


def refusal(act: Callable[[], object]) -> str:
    """The one line that a person gets to see."""
    with pytest.raises(BundleError) as caught:
        act()
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert caught.value.hint
    return text


def with_graph(bundle: Bundle, change: Callable[[Any], None]) -> Bundle:
    model = onnx.load_model_from_string(bundle.section("train.onnx"))
    change(model)
    return replaced(bundle, {"train.onnx": model.SerializeToString()})


def check(bundle: Bundle) -> None:
    open_runtime(bundle, ONNX).self_check()


# -- the file ------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.data())
def test_a_truncated_bundle(honest: Bundle, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(honest.data) - 1))
    refusal(lambda: Bundle.from_bytes(honest.data[:length]))


def test_a_wrong_digest(honest: Bundle) -> None:
    digest = honest.manifest.sections[0].sha256.encode()
    forged = honest.data.replace(digest, bytes(reversed(digest)))
    assert "train.onnx does not have its digest" in refusal(lambda: Bundle.from_bytes(forged))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite(honest: Bundle, value: float) -> None:
    values = honest.initial_parameters().copy()
    values[3] = value
    section = values.astype("<f4").tobytes()
    assert "NaN or infinity" in refusal(lambda: replaced(honest, {"parameters": section}))


@pytest.mark.parametrize("name", ["../x", "..", "x/y", "/etc/passwd", "x.y", ""])
def test_names_that_lead_elsewhere(honest: Bundle, name: str) -> None:
    first = honest.manifest.inputs[0]
    inputs = (Array(name, first.dtype, first.shape), *honest.manifest.inputs[1:])
    assert "do not follow from its data" in refusal(lambda: replaced(honest, {}, inputs=inputs))


def test_a_task_whose_name_is_a_path(honest: Bundle) -> None:
    assert "not valid" in refusal(lambda: replaced(honest, {}, name="../../etc/cron.d/wear"))


def test_a_section_that_claims_more_than_it_may(honest: Bundle) -> None:
    forged = honest.data.replace(b'"size_bytes":', b'"size_bytes":9999', 1)
    refusal(lambda: Bundle.from_bytes(forged))


# -- the graph -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_an_initializer_in_another_file(
    honest: Bundle, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(64))

    def change(model: Any) -> None:
        tensor = model.graph.initializer.add(name="stolen", data_type=TensorProto.FLOAT, dims=[16])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    hostile = with_graph(honest, change)
    assert "such as data in other files" in refusal(lambda: check(hostile))


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "evil"])
def test_an_operator_of_another_domain(honest: Bundle, domain: str) -> None:
    def imported(model: Any) -> None:
        model.opset_import.append(helper.make_opsetid(domain, 1))

    def used(model: Any) -> None:
        model.graph.node[0].domain = domain

    for change in (imported, used):
        hostile = with_graph(honest, change)
        assert f"the operator domain {domain!r}" in refusal(lambda hostile=hostile: check(hostile))  # type: ignore[misc]


def test_functions_of_its_own(honest: Bundle) -> None:
    def change(model: Any) -> None:
        model.functions.add(name="Add", domain="evil")

    hostile = with_graph(honest, change)
    assert "has the field 25" in refusal(lambda: check(hostile))


def test_inputs_that_the_manifest_does_not_know(honest: Bundle) -> None:
    def change(model: Any) -> None:
        model.graph.input.append(helper.make_tensor_value_info("password", TensorProto.FLOAT, [1]))

    hostile = with_graph(honest, change)
    assert "takes password, which the manifest does not know" in refusal(lambda: check(hostile))


def test_inputs_of_another_shape(honest: Bundle) -> None:
    def change(model: Any) -> None:
        for port in model.graph.input:
            if port.name == "x":
                port.type.tensor_type.shape.dim[1].dim_value = 1_000_000

    hostile = with_graph(honest, change)
    assert "train.onnx takes x as" in refusal(lambda: check(hostile))


def test_more_operators_than_a_step_needs(honest: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldfold.task.onnx_form.MAX_NODES", 10)
    assert "operators, which run" in refusal(lambda: check(honest))


def loop(trips: Any, body: list[Any]) -> list[Any]:
    """A loop of `trips`: a number, or the name of a value."""
    nodes = []
    if isinstance(trips, int):
        value = helper.make_tensor("trips", TensorProto.INT64, [], [trips])
        nodes.append(helper.make_node("Constant", [], ["trips"], value=value))
    graph = helper.make_graph(
        [*body, helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    count = "trips" if isinstance(trips, int) else trips
    return [*nodes, helper.make_node("Loop", [count, ""], [], body=graph)]


@pytest.mark.parametrize(
    "nodes",
    [
        loop(1 << 60, []),
        loop(100_000, loop(100_000, [])),
        loop("seed", []),
        loop("", []),
        loop(-1, []),
        loop(10, loop("turn", [])),
        [*loop(10, []), *loop("absent", [])],
    ],
    ids=["long", "nested", "by an input", "for ever", "negative", "by the outer turn", "by nothing"],
)
def test_loops_without_a_bound(honest: Bundle, nodes: list[Any]) -> None:
    hostile = with_graph(honest, lambda model: model.graph.node.extend(nodes))
    assert "is not a graph that may be run" in refusal(lambda: check(hostile))


def test_a_short_loop_is_no_attack(honest: Bundle) -> None:
    check_form("train.onnx", with_graph(honest, lambda m: m.graph.node.extend(loop(8, []))).section("train.onnx"))


def test_graphs_within_graphs_without_end(honest: Bundle) -> None:
    nodes: list[Any] = []
    for _ in range(8):
        nodes = loop(1, nodes)
    hostile = with_graph(honest, lambda model: model.graph.node.extend(nodes))
    assert "too deep" in refusal(lambda: check(hostile))


def test_an_operator_that_holds_a_graph_of_unknown_work(honest: Bundle) -> None:
    body = helper.make_graph([], "body", [], [])
    mapping = helper.make_node("SequenceMap", ["x"], ["z"], body=body)
    hostile = with_graph(honest, lambda model: model.graph.node.append(mapping))
    assert "holds a graph in an operator SequenceMap" in refusal(lambda: check(hostile))


@given(st.binary(max_size=200))
def test_noise_is_no_graph(noise: bytes) -> None:
    try:
        check_form("train.onnx", noise)
    except BundleError as error:
        assert "train.onnx is not a graph" in error.reason  # noqa: PT017 -- noise may also be an empty graph


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_graph_is_looked_into_without_a_crash(honest: Bundle, data: st.DataObject) -> None:
    graph = bytearray(honest.section("train.onnx"))
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        check_form("train.onnx", bytes(graph))


# -- work without end, in a process of its own -----------------------------------------------------------------------


def heavy_graph(bundle: Bundle) -> Bundle:
    """Nothing that the form forbids: products of large matrices, one after the other."""
    shape = helper.make_tensor("side", TensorProto.INT64, [2], [2048, 2048])
    nodes = [
        helper.make_node("Constant", [], ["side"], value=shape),
        helper.make_node("ConstantOfShape", ["side"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{index}", f"product{index}"], [f"product{index + 1}"])
            for index in range(500)
        ),
        helper.make_node("ReduceMean", ["product500"], ["heavy"], keepdims=0),
        helper.make_node("Add", ["heavy", "loss"], ["slow_loss"]),
    ]

    def change(model: Any) -> None:
        model.graph.node.extend(nodes)
        for output in model.graph.output:
            if output.name == "loss":
                output.name = "slow_loss"

    return with_graph(bundle, change)


def heavy_program(bundle: Bundle, *steps: Step, operators: tuple[str, ...]) -> Bundle:
    content = decode(bundle.section("programs.torch"))
    first = len(content.operators)
    own = tuple(msgspec.structs.replace(step, operator=step.operator + first) for step in steps)
    train = msgspec.structs.replace(content.train, steps=(*content.train.steps, *own))
    content = msgspec.structs.replace(content, operators=content.operators + operators, train=train)
    return replaced(bundle, {"programs.torch": encode(content)})


def test_an_honest_bundle_passes_its_trial(honest: Bundle) -> None:
    for chosen in (ONNX, TORCH):
        try_out(honest, chosen)


def test_a_graph_that_runs_for_ever_is_ended(honest: Bundle) -> None:
    text = refusal(lambda: try_out(heavy_graph(honest), ONNX, Limits(cpu_s=2)))
    assert "does not end within 2 s of processor time" in text


def test_a_program_that_runs_for_ever_is_ended(honest: Bundle) -> None:
    program = decode(honest.section("programs.torch"))
    made = len(program.train.inputs) + len(program.constants) + len(program.train.steps)
    steps = (
        Step(0, ((2048, 2048), 0.5), {"dtype": "@float32", "device": "@device"}),
        *(Step(1, (f"%{made + index}", f"%{made + index}")) for index in range(500)),
    )
    hostile = heavy_program(honest, *steps, operators=("aten.full.default", "aten.mm.default"))
    text = refusal(lambda: try_out(hostile, TORCH, Limits(cpu_s=5)))
    assert "does not end within 5 s of processor time" in text


def test_a_program_that_eats_all_memory_is_refused(honest: Bundle) -> None:
    full = Step(0, ((1 << 20, 1 << 20), 0.5), {"dtype": "@float32", "device": "@device"})
    hostile = heavy_program(honest, full, operators=("aten.full.default",))
    assert "cannot run train" in refusal(lambda: try_out(hostile, TORCH))


def test_a_runtime_that_crashes_takes_only_the_child_with_it(honest: Bundle) -> None:
    """While it computes it gets the signal that abort() sends."""
    own, endless = psutil.Process(), heavy_graph(honest)
    with ThreadPoolExecutor() as pool:
        said = pool.submit(refusal, lambda: try_out(endless, ONNX))
        while not (children := [child for child in own.children() if child.cpu_times().user > LOADED_AFTER_S]):
            assert not said.done()
            time.sleep(0.05)
        children[0].send_signal(signal.SIGABRT)
        assert "crashes the runtime here (SIGABRT" in said.result()


@pytest.mark.parametrize("chosen", [ONNX, TORCH])
def test_what_the_runtime_itself_takes_is_not_held_against_a_bundle(honest: Bundle, chosen: RuntimeSettings) -> None:
    try_out(honest, chosen, Limits(memory_bytes=64 << 20))


def test_a_bundle_that_does_not_reproduce_its_losses_fails_its_trial(honest: Bundle) -> None:
    wrong = msgspec.structs.replace(honest.manifest.self_check, evaluation_loss=123.0)
    hostile = replaced(honest, {}, self_check=wrong)
    assert "self-check: the evaluation loss" in refusal(lambda: try_out(hostile, ONNX))
