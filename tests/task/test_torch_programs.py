from __future__ import annotations

import io
import pickle
import re
import zipfile
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import zstandard

from fieldfold.errors import BundleError
from fieldfold.task import Bundle, signature
from fieldfold.task.bundle import SECTION_NAMES, pack
from fieldfold.task.manifest import SectionName
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.program import Constant, GraphName, Program, Programs, Step, decode, encode
from fieldfold.task.self_check import read_batch
from fieldfold.task.signature import Port
from fieldfold.task.torch_assembly import constant_tensor
from fieldfold.task.torch_program import TorchProgram
from fieldfold.task.torch_recurrent import RECURRENCES
from fieldfold.task.torch_runtime import TorchRuntime

CPU = torch.device("cpu")


def with_programs(bundle: Bundle, content: bytes) -> Bundle:
    sections: dict[SectionName, bytes] = {name: bundle.section(name) for name in SECTION_NAMES}
    return Bundle.from_bytes(pack(bundle.manifest, sections | {"programs.torch": content}))


def programs(*operators: str, steps: tuple[Step, ...], constants: tuple[Constant, ...] = ()) -> Programs:
    """Programs of two inputs `x` and `y`; the output is the last step's."""
    program = Program(("x", "y"), steps, (("out", 2 + len(constants) + len(steps) - 1),))
    return Programs(operators, constants, program, program, program)


def run(content: Programs, *inputs: torch.Tensor, device: torch.device = CPU) -> torch.Tensor:
    checked = decode(encode(content))
    constants = [constant_tensor(constant, device) for constant in checked.constants]
    program = TorchProgram("train", checked, constants, device)
    return program.run(dict(zip(program.inputs, inputs, strict=True)))["out"]


ONES = torch.ones(2, 3)


# -- parity --------------------------------------------------------------------------------------------------------


def test_both_runtimes_take_the_same_steps(each_bundle: Bundle) -> None:
    """Dropout and noise included: their masks come from the seed and not from a runtime."""
    ends = []
    batch = read_batch(each_bundle)
    for runtime in (OnnxRuntime(each_bundle), TorchRuntime(each_bundle)):
        runtime.begin(each_bundle.initial_parameters())
        for seed in (7, 8, -9, 2**40):
            runtime.step(batch, learning_rate=1e-3, seed=seed, proximal=0.1, clip_norm=1.0)
        ends.append(runtime.delta())
        np.testing.assert_allclose(runtime.parameters() - each_bundle.initial_parameters(), ends[-1], atol=1e-7)
    assert np.linalg.norm(ends[0] - ends[1]) < 1e-4 * np.linalg.norm(ends[0])


def test_every_tensor_lives_on_the_device_that_the_program_runs_on(each_bundle: Bundle) -> None:
    """On the device `meta`, which has shapes and no numbers, an operator refuses a tensor that is left on the CPU."""
    meta = torch.device("meta")
    content = decode(each_bundle.section("programs.torch"))
    manifest = each_bundle.manifest
    constants = [constant_tensor(constant, meta) for constant in content.constants]
    graphs: dict[GraphName, tuple[Port, ...]] = {
        "train": signature.train_ports(manifest)[0],
        "evaluate": signature.evaluate_ports(manifest)[0],
        "predict": signature.predict_ports(manifest)[0],
    }
    for name, ports in graphs.items():
        feeds = {}
        for port in ports:
            shape = [8 if size is None else size for size in port.shape or ()]
            feeds[port.name] = torch.zeros(shape, dtype=getattr(torch, port.dtype), device=meta)
        outputs = TorchProgram(name, content, constants, meta).run(feeds)
        assert {output.device.type for output in outputs.values()} == {"meta"}


def test_programs_are_small_and_say_nothing_of_where_they_were_made(each_bundle: Bundle) -> None:
    content = each_bundle.section("programs.torch")
    assert not re.search(rb"\.py|site-packages|/home|/usr|/tmp|stack_trace|torch\.", content)
    assert len(zstandard.compress(content, 19)) < 4000


# -- the form ------------------------------------------------------------------------------------------------------


def test_arguments_are_numbers_registers_lists_and_words() -> None:
    content = programs(
        "aten.cat.default",
        "aten._to_copy.default",
        "aten.full.default",
        "aten.minimum.default",
        steps=(
            Step(0, (("%0", "%1"), 1)),
            Step(1, ("%2",), {"dtype": "@float64"}),
            Step(2, ((2, 6), "#inf"), {"dtype": "@float64", "device": "@device"}),
            Step(3, ("%3", "%4")),
        ),
    )
    out = run(content, ONES, 2 * ONES)
    assert out.dtype == torch.float64
    assert out.tolist() == [[1, 1, 1, 2, 2, 2]] * 2


def test_sizes_are_reckoned_and_results_chosen() -> None:
    content = programs(
        "aten.sym_size.int",
        "sym.mul",
        "aten.arange.default",
        "aten.max.dim",
        "sym.getitem",
        "aten.add.Tensor",
        steps=(
            Step(0, ("%0", 0)),
            Step(1, ("%2", 4)),
            Step(2, ("%3",), {"dtype": "@float32", "device": "@device"}),
            Step(3, ("%4", 0)),
            Step(4, ("%5", 0)),
            Step(5, ("%1", "%6"), {"alpha": 2}),
        ),
    )
    assert run(content, ONES, ONES).tolist() == [[15.0] * 3] * 2


def test_constants_are_part_of_it() -> None:
    constant = Constant("float32", (3,), np.array([1, 2, 3], "<f4").tobytes())
    content = programs("aten.mul.Tensor", steps=(Step(0, ("%0", "%2")),), constants=(constant,))
    assert run(content, ONES, ONES).tolist() == [[1, 2, 3]] * 2


def test_an_operator_may_write_into_what_the_program_has_made() -> None:
    steps = (Step(0, ("%0",)), Step(1, ("%2", "%1")))
    x = ONES.clone()
    assert run(programs("aten.clone.default", "aten.add_.Tensor", steps=steps), x, ONES).tolist() == [[2] * 3] * 2
    assert torch.equal(x, ONES)


@pytest.mark.parametrize("backwards", [False, True])
def test_all_steps_of_an_lstm_are_one_operator(backwards: bool) -> None:  # noqa: FBT001
    steps, size = 7, 4
    layer = torch.nn.LSTM(3, size)
    x = torch.randn(steps, 2, 3)
    with torch.no_grad():
        of_input, of_state, bias1, bias2 = layer.all_weights[0]
        from_input = torch.nn.functional.linear(x, of_input, bias1 + bias2)
        order = torch.tensor([*range(2 * size), *range(3 * size, 4 * size), *range(2 * size, 3 * size)])
        expected = layer(x.flip(0) if backwards else x)[1]
        weight = of_state[order].t()
    start = torch.zeros(2, size)
    hidden, cell, *_ = RECURRENCES["recurrent.lstm"](from_input[..., order], start, start, weight, backwards)
    torch.testing.assert_close((hidden, cell), (expected[0][0], expected[1][0]))


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator",
    [
        "torch.hub.load",
        "torch.os.system",
        "aten.from_file.default",
        "aten.as_strided.default",
        "aten.empty.memory_format",
        "aten.mul",
        "aten.mul.Tensor.__class__",
        "builtins.eval",
        "operator.attrgetter",
        "sym.pow",
        "prims.mul.default",
        "",
    ],
)
def test_an_operator_that_is_not_listed_is_refused(operator: str) -> None:
    with pytest.raises(BundleError, match=re.escape(f"calls {operator!r}, which is not allowed")):
        run(programs(operator, steps=(Step(0, ("%0",)),)), ONES, ONES)


@pytest.mark.parametrize(
    "steps",
    [
        (Step(1, ("%0", "%1")),),
        (Step(2, ("%0", 0)), Step(1, ("%2", "%1"))),
        (Step(0, ("%0",)), Step(3, ((), "%2")), Step(1, ("%1", "%0"))),
    ],
)
def test_an_operator_may_not_write_into_what_it_was_given(steps: tuple[Step, ...]) -> None:
    operators = ("aten.clone.default", "aten.add_.Tensor", "aten.unsqueeze.default", "aten.full.default")
    with pytest.raises(BundleError, match="writes into its inputs"):
        run(programs(*operators, steps=steps), ONES, ONES)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((Step(0, ("%2", "%1")),), "before it is filled"),
        ((Step(0, ("%-1", "%1")),), "names the register"),
        ((Step(0, ("%", "%1")),), "names the register"),
        ((Step(0, ("%٣", "%1")),), "names the register"),
        ((Step(7, ("%0", "%1")),), "which is not listed"),
        ((Step(0, ("%0", "@Tensor")),), "holds the argument"),
        ((Step(0, ("%0", "__import__('os')")),), "holds the argument"),
        ((Step(0, ("%0", "#1e9")),), "holds the argument"),
        ((Step(0, ("%0",)),), "cannot run train"),
        ((Step(0, ("%0", "'text")),), "cannot run train"),
        ((Step(0, ("%0", "%1"), {"surprise": 1}),), "cannot run train"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(steps: tuple[Step, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        run(programs("aten.mul.Tensor", steps=steps), ONES, ONES)


def test_a_size_does_not_grow_without_end() -> None:
    steps = (Step(0, ("%0", 0)), *(Step(1, (f"%{index}", f"%{index}")) for index in range(2, 60)))
    with pytest.raises(BundleError, match="a size is too large"):
        run(programs("aten.sym_size.int", "sym.mul", steps=steps), ONES, ONES)


def test_lists_are_not_reckoned_with() -> None:
    with pytest.raises(BundleError, match="no size"):
        run(programs("sym.mul", steps=(Step(0, ((1, 2), 1 << 40)),)), ONES, ONES)


@pytest.mark.parametrize(
    "constant",
    [
        Constant("object", (1,), bytes(8)),
        Constant("float32", (1 << 40,), bytes(4)),
        Constant("float32", (-1, -1), bytes(4)),
        Constant("float32", (1,) * 9, bytes(4)),
    ],
)
def test_a_constant_is_what_it_says(constant: Constant) -> None:
    with pytest.raises(BundleError, match="holds a constant"):
        run(programs("aten.mul.Tensor", steps=(Step(0, ("%0", "%1")),), constants=(constant,)), ONES, ONES)


class Malicious:
    """What would run code if anybody unpickled it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('a pickle was executed')",))


def pt2_with_pickle() -> bytes:
    """A torch.export archive whose sample inputs are a malicious pickle; torch.export.load would execute it."""
    buffer, archive = io.BytesIO(), io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, pickle.dumps(Malicious()) if "sample_inputs" in name else content)
    return archive.getvalue()


def test_torch_export_load_executes_pickles_which_is_why_it_is_not_used() -> None:
    with pytest.raises(SystemExit, match="a pickle was executed"):
        torch.export.load(io.BytesIO(pt2_with_pickle()))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff", pickle.dumps(Malicious()), pt2_with_pickle()]
)
def test_what_is_no_list_of_operators_is_refused_and_not_executed(mlp_bundle: Bundle, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"programs\.torch is not valid"):
        TorchRuntime(with_programs(mlp_bundle, content)).self_check()


def test_programs_of_another_model_are_refused(mlp_bundle: Bundle, batch_norm_bundle: Bundle) -> None:
    swapped = with_programs(mlp_bundle, batch_norm_bundle.section("programs.torch"))
    with pytest.raises(BundleError, match="program train takes buffers"):
        TorchRuntime(swapped).self_check()


def test_a_program_in_the_place_of_another_is_refused(mlp_bundle: Bundle) -> None:
    content = decode(mlp_bundle.section("programs.torch"))
    wrong = encode(msgspec.structs.replace(content, train=content.evaluate, predict=content.evaluate))
    runtime = TorchRuntime(with_programs(mlp_bundle, wrong))
    with pytest.raises(BundleError, match="train gives"):
        runtime.self_check()
    with pytest.raises(BundleError, match="predict takes y"):
        runtime.predict(mlp_bundle.initial_parameters(), read_batch(mlp_bundle))


def test_what_comes_out_has_the_shapes_of_the_manifest(mlp_bundle: Bundle) -> None:
    content = decode(mlp_bundle.section("programs.torch"))
    outputs = dict(content.train.outputs)
    outputs["loss"], outputs["next.parameters"] = outputs["next.parameters"], outputs["loss"]
    train = msgspec.structs.replace(content.train, outputs=tuple(outputs.items()))
    wrong = encode(msgspec.structs.replace(content, train=train))
    with pytest.raises(BundleError, match=r"gives next\.parameters of shape \(\)"):
        TorchRuntime(with_programs(mlp_bundle, wrong)).self_check()
