from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fieldfold.errors import ConfigError
from fieldfold.task import Bundle, RuntimeSettings, open_runtime
from fieldfold.task.opening import Choice, Machine, choose

GATEWAY = Machine(onnxruntime=True, torch=False, cuda=False)
WORKSTATION = Machine(onnxruntime=True, torch=True, cuda=False)
WITH_GPU = Machine(onnxruntime=True, torch=True, cuda=True)
ONLY_TORCH = Machine(onnxruntime=False, torch=True, cuda=False)
NOTHING = Machine(onnxruntime=False, torch=False, cuda=False)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (GATEWAY, Choice("onnx", "cpu", "torch is not installed")),
        (WORKSTATION, Choice("onnx", "cpu", "torch finds no CUDA device")),
        (WITH_GPU, Choice("torch", "cuda", "torch finds a CUDA device")),
        (ONLY_TORCH, Choice("torch", "cpu", "onnxruntime is not installed")),
    ],
)
def test_what_suits_the_machine_is_taken(machine: Machine, expected: Choice) -> None:
    assert choose(RuntimeSettings(), machine) == expected


@pytest.mark.parametrize(
    ("settings", "machine", "expected"),
    [
        (RuntimeSettings(runtime="onnx"), WITH_GPU, ("onnx", "cpu")),
        (RuntimeSettings(runtime="torch"), WITH_GPU, ("torch", "cuda")),
        (RuntimeSettings(runtime="torch"), WORKSTATION, ("torch", "cpu")),
        (RuntimeSettings(device="cuda"), WITH_GPU, ("torch", "cuda")),
        (RuntimeSettings(device="cpu"), GATEWAY, ("onnx", "cpu")),
        (RuntimeSettings(runtime="torch", device="cpu"), WORKSTATION, ("torch", "cpu")),
    ],
)
def test_what_is_asked_for_is_taken(settings: RuntimeSettings, machine: Machine, expected: tuple[str, str]) -> None:
    choice = choose(settings, machine)
    assert (choice.runtime, choice.device) == expected


@pytest.mark.parametrize(
    ("settings", "machine", "reason", "hint"),
    [
        (RuntimeSettings(runtime="torch"), GATEWAY, "torch is asked for, and not installed", r"fieldfold\[cuda\]"),
        (RuntimeSettings(runtime="onnx"), ONLY_TORCH, "onnx is asked for, and not installed", "package onnxruntime"),
        (RuntimeSettings(device="cuda"), GATEWAY, "torch is asked for, and not installed", r"fieldfold\[cuda\]"),
        (
            RuntimeSettings(device="cuda"),
            WORKSTATION,
            "device cuda is asked for, and torch finds none",
            "NVIDIA driver",
        ),
        (RuntimeSettings(runtime="onnx", device="cuda"), WITH_GPU, "does not go with", "set runtime to torch"),
        (RuntimeSettings(), NOTHING, "nothing here to train with", "package onnxruntime"),
    ],
)
def test_what_is_not_there_is_named_with_what_to_install(
    settings: RuntimeSettings, machine: Machine, reason: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        choose(settings, machine)
    assert caught.match(hint)


def test_a_provider_that_this_onnxruntime_lacks_is_named_with_those_it_has(mlp_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"no provider 'Absent'; it has .*CPUExecutionProvider"):
        open_runtime(mlp_bundle, RuntimeSettings(runtime="onnx", providers=("Absent",)))


ONNX_NODE = """
import sys
from pathlib import Path
from fieldfold.task import Bundle, RuntimeSettings, open_runtime
runtime = open_runtime(Bundle.read(Path(sys.argv[1])), RuntimeSettings(runtime=sys.argv[2], device=sys.argv[3]))
runtime.self_check()
print(runtime.name, *sorted({"torch", "onnx", "onnxruntime"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("runtime", "device", "expected"),
    [("onnx", "auto", "onnx onnxruntime"), ("auto", "cpu", "onnx onnxruntime"), ("torch", "cpu", "torch torch")],
)
def test_what_is_not_chosen_is_never_imported(
    runtime: str, device: str, expected: str, mlp_bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "task.bundle"
    path.write_bytes(mlp_bundle.data)
    done = subprocess.run(
        [sys.executable, "-c", ONNX_NODE, str(path), runtime, device],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.strip(), done.returncode) == (expected, 0), done.stderr
