"""Task in, bundle out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

import fieldfold
from fieldfold.errors import BundleError, CompileError, FieldfoldError
from fieldfold.sensors.arrays import Array
from fieldfold.task import signature
from fieldfold.task.authoring import Task
from fieldfold.task.bundle import Bundle, pack
from fieldfold.task.compile import stages
from fieldfold.task.compile.export import Example, export_graph
from fieldfold.task.compile.model import PreparedModel, prepare_model
from fieldfold.task.compile.origins import Origin
from fieldfold.task.compile.outputs import output_arrays
from fieldfold.task.compile.parity import FLOAT32_LIMIT, Parity, check_parity
from fieldfold.task.compile.randomness import UnseededError
from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.refusals import unseeded
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.compile.source_lines import raised_at, told
from fieldfold.task.compile.step import TaskFunctions
from fieldfold.task.compile.task_file import load_task
from fieldfold.task.compile.torch_export import trace_for_torch, write_programs
from fieldfold.task.manifest import LearningRate, Manifest, SectionName, SelfCheck
from fieldfold.task.self_check import SEED, rounded, write_batch
from fieldfold.task.signature import Port

SELF_CHECK_STEPS = 5
SELF_CHECK_ROWS = 8
TRACE_ROWS = 4

_FLOAT32_MAX = 3.4e38

Progress = Callable[[str], None]


class Built(NamedTuple):
    """A bundle, and how near it came to float64 torch."""

    bundle: Bundle
    parity: list[Parity]


def build_file(path: Path, progress: Progress) -> Built:
    """Runs a task file and compiles its `TASK`.

    Raises:
        CompileError: when that cannot be done; the reason begins with a path, and a line where one is to blame.
    """
    progress(stages.READING)
    task = load_task(path)
    try:
        return _compile(task, progress)
    except CompileError as error:
        if error.reason.startswith(f"{path}:"):
            raise
        raise CompileError(f"{path}: {error.reason}", error.hint) from error


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine; and faster for models of a gateway's size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compile_task(task: Task, progress: Progress) -> Bundle:
    """Traces, checks and packs a task; `progress` is told of each of `stages.STAGES`, and of what is found in it.

    Raises:
        CompileError: when the task is not sound, cannot be exported, or fails the parity gate.
    """
    return _compile(task, progress).bundle


@_one_thread()
def _compile(task: Task, progress: Progress) -> Built:
    arrays = Arrays.of(task.data)
    with _failures_told(task, "the model cannot be made", "give an nn.Module, or what makes one when it is called"):
        prepared = prepare_model(task)
    check_batch = arrays.sample(min(task.batch_size, SELF_CHECK_ROWS), task.seed)
    progress(stages.FLOAT64)
    shapes = ", ".join(f"{name} {array.dtype} of shape {array.shape}" for name, array in check_batch.items())
    with _failures_told(task, "a training step in torch fails", f"the batch holds {shapes}"):
        outputs = ReferenceRun(task, prepared, arrays, torch.float32).predict(check_batch)
        self_check = _self_check(task, ReferenceRun(task, prepared, arrays), check_batch)
    given = output_arrays(outputs, self_check.batch_size)
    manifest = _checked(_manifest(task, prepared, arrays, self_check, given))
    sections: dict[SectionName, bytes] = {
        "parameters": prepared.first_values().astype("<f4").tobytes(),
        "self_check": write_batch(manifest, check_batch),
    }
    graphs = _graphs(task, prepared, manifest)
    for name, function, examples, ports in graphs:
        progress(stages.exporting(name))
        sections[name] = export_graph(name, function, examples, ports)
    progress(stages.exporting("programs.torch"))
    sections["programs.torch"] = write_programs(*(trace_for_torch(*graph) for graph in graphs))
    try:
        bundle = Bundle.from_bytes(pack(manifest, sections))
    except BundleError as error:
        raise CompileError(f"task {task.name}: {error.reason}", error.hint) from error
    progress(stages.COMPARING)
    measured = check_parity(task, arrays, bundle, lambda dtype: ReferenceRun(task, prepared, arrays, dtype))
    for parity in measured:
        progress(f"{parity.runtime}, batches of {parity.rows}: parameters within {parity.error:.1e}")
        if not parity.even:
            progress(
                f"  within {FLOAT32_LIMIT:.0e} is enough: in every batch rounding decides at a ReLU or a maximum"
            )
        if parity.loose:
            progress(f"  not counted, float32 does not determine them: {', '.join(parity.loose)}")
    return Built(bundle, measured)


class _Graph(NamedTuple):
    name: SectionName
    function: Callable[..., tuple[Tensor, ...]]
    examples: list[Example]
    outputs: Sequence[str]


def _graphs(task: Task, prepared: PreparedModel, manifest: Manifest) -> list[_Graph]:
    functions = TaskFunctions(task, prepared, len(manifest.inputs), len(manifest.targets))
    return [
        _graph("train.onnx", functions.train, signature.train_ports(manifest)),
        _graph("evaluate.onnx", functions.evaluate, signature.evaluate_ports(manifest)),
        _graph("predict.onnx", functions.predict, signature.predict_ports(manifest)),
    ]


def _graph(
    name: SectionName, function: Callable[..., tuple[Tensor, ...]], ports: tuple[Sequence[Port], Sequence[Port]]
) -> _Graph:
    examples = []
    for port in ports[0]:
        shape = [TRACE_ROWS if size is None else size for size in port.shape]
        examples.append(Example(port.name, torch.zeros(shape, dtype=getattr(torch, port.dtype)), None in port.shape))
    return _Graph(name, function, examples, [port.name for port in ports[1]])


@contextlib.contextmanager
def _failures_told(task: Task, what: str, hint: str) -> Iterator[None]:
    """Whatever the author's code raises becomes a CompileError with the author's line."""
    try:
        yield
    except FieldfoldError:
        raise
    except UnseededError as error:
        raise unseeded(error, Origin.of_error(error)) from error
    except Exception as error:
        where = raised_at(error) or f"task {task.name}"
        raise CompileError(f"{where}: {what}: {told(error)}", hint) from error


def _self_check(task: Task, run: ReferenceRun, batch: dict[str, NDArray[Any]]) -> SelfCheck:
    """Losses from float64 torch: what every correct runtime comes near."""
    rate = _learning_rate(task).initial
    losses = [
        run.step(batch, learning_rate=rate, seed=SEED + index, proximal=task.proximal, clip_norm=task.clip_norm)
        for index in range(SELF_CHECK_STEPS)
    ]
    evaluation_loss = run.evaluate(batch)[0]
    if not max(map(abs, (*losses, evaluation_loss))) < _FLOAT32_MAX:
        raise CompileError(
            f"task {task.name}: the loss is not finite within {SELF_CHECK_STEPS} steps on standard normal inputs",
            "lower the learning rate, or set clip_norm",
        )
    return SelfCheck(rounded(losses), rounded([evaluation_loss])[0], rate, len(next(iter(batch.values()))))


def _manifest(
    task: Task, prepared: PreparedModel, arrays: Arrays, self_check: SelfCheck, outputs: tuple[Array, ...]
) -> Manifest:
    return Manifest(
        format=1,
        name=task.name,
        description=task.description.strip(),
        kind=task.data.kind,
        data=task.data,
        layout=prepared.layout,
        local=prepared.local,
        frozen=prepared.frozen,
        optimizer_state=signature.optimizer_shapes(task.optimizer, sum(spec.size for spec in prepared.trained)),
        inputs=arrays.inputs,
        targets=arrays.targets,
        outputs=outputs,
        metrics=tuple(measure.metric for measure in task.metrics),
        optimizer=task.optimizer,
        learning_rate=_learning_rate(task),
        batch_size=task.batch_size,
        local_steps=task.local_steps,
        proximal=task.proximal,
        clip_norm=task.clip_norm,
        privacy=task.privacy,
        self_check=self_check,
        sections=(),
        producer=f"fieldfold {fieldfold.__version__}, torch {torch.__version__}, onnx {onnx.__version__}",
    )


def _checked(manifest: Manifest) -> Manifest:
    """Refuses what a reader of the bundle would refuse, before the slow part."""
    try:
        return msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    except msgspec.MsgspecError as error:
        raise CompileError(f"task {manifest.name}: {error}", "change that field of the Task") from error


def _learning_rate(task: Task) -> LearningRate:
    given = task.learning_rate
    return given if isinstance(given, LearningRate) else LearningRate(float(given))
