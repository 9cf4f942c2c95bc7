"""Chooses the runtime for this machine and opens a bundle with it."""

# ruff: noqa: PLC0415 -- ONNX Runtime is 20 MB and torch 200 MB: what is not chosen is never imported

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from fieldfold.errors import BundleError, ConfigError
from fieldfold.task.bundle import Bundle

if TYPE_CHECKING:
    from fieldfold.task.runtime import Runtime

_NVIDIA = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")  # a PC's, a Jetson's, a newer one's, WSL's
_INSTALL_TORCH = "install fieldfold[cuda], or set runtime to auto or onnx"
_INSTALL_DRIVER = "install the NVIDIA driver and a torch built for CUDA, or set device to auto or cpu"

RuntimeName = Literal["onnx", "torch"]


class RuntimeSettings(msgspec.Struct, frozen=True):
    """What is asked for.

    Attributes:
        runtime: `auto` takes torch where a CUDA device is, else ONNX Runtime, else torch on the CPU.
        device: `cpu` or `cuda`; `auto` takes CUDA where it is.
        providers: ONNX Runtime's execution providers, the preferred first.
        threads: threads within an operator on a CPU.
    """

    runtime: Literal["auto", "onnx", "torch"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1


class Machine(msgspec.Struct, frozen=True):
    """What there is."""

    onnxruntime: bool
    torch: bool
    cuda: bool


class Choice(msgspec.Struct, frozen=True):
    """The runtime, where it computes, and why."""

    runtime: RuntimeName
    device: Literal["cpu", "cuda"]
    reason: str


def installed() -> tuple[RuntimeName, ...]:
    """The runtimes that this machine has, ONNX Runtime first.

    Raises:
        ConfigError: when there is none.
    """
    packages: dict[RuntimeName, str] = {"onnx": "onnxruntime", "torch": "torch"}
    found = tuple(name for name, package in packages.items() if _is_installed(package))
    if not found:
        raise _nothing()
    return found


def look(settings: RuntimeSettings) -> Machine:
    """Looks without importing: torch is asked only where it is installed, an NVIDIA device is, and it may be used."""
    torch = _is_installed("torch")
    wanted = settings.runtime != "onnx" and settings.device != "cpu"
    return Machine(
        onnxruntime=_is_installed("onnxruntime"),
        torch=torch,
        cuda=wanted and torch and any(Path(path).exists() for path in _NVIDIA) and _torch_finds_cuda(),
    )


def choose(settings: RuntimeSettings, machine: Machine) -> Choice:
    """The runtime to take.

    Raises:
        ConfigError: when what is asked for is not there.
    """
    if settings.runtime == "onnx":
        if settings.device == "cuda":
            raise ConfigError(
                "device cuda does not go with the runtime onnx",
                "set runtime to torch, or name a provider of onnxruntime",
            )
        if not machine.onnxruntime:
            raise ConfigError("the runtime onnx is asked for, and not installed", "install the package onnxruntime")
        return Choice("onnx", "cpu", "asked for")
    if settings.runtime == "torch" or settings.device == "cuda":
        return _torch(settings, machine)
    if machine.torch and machine.cuda:
        return Choice("torch", "cuda", "torch finds a CUDA device")
    if machine.onnxruntime:
        return Choice("onnx", "cpu", "torch finds no CUDA device" if machine.torch else "torch is not installed")
    if machine.torch:
        return Choice("torch", "cpu", "onnxruntime is not installed")
    raise _nothing()


def _nothing() -> ConfigError:
    return ConfigError("there is nothing here to train with", "install the package onnxruntime")


def _torch(settings: RuntimeSettings, machine: Machine) -> Choice:
    if not machine.torch:
        raise ConfigError("torch is asked for, and not installed", _INSTALL_TORCH)
    if settings.device == "cuda" and not machine.cuda:
        raise ConfigError("device cuda is asked for, and torch finds none", _INSTALL_DRIVER)
    return Choice("torch", "cuda" if machine.cuda else "cpu", "asked for")


def chosen(settings: RuntimeSettings) -> Choice:
    """The runtime to take on this machine.

    Raises:
        ConfigError: when what is asked for is not there.
    """
    return choose(settings, look(settings))


def version_of(choice: Choice) -> str:
    """What a bundle was tried with: runtime, device, and the version of the package behind it where it is known."""
    package = "torch" if choice.runtime == "torch" else "onnxruntime"
    number = ""
    with contextlib.suppress(PackageNotFoundError):  # as onnxruntime-gpu, or built by hand
        number = version(package)
    return f"{package} {number} on {choice.device}"


def open_runtime(bundle: Bundle, settings: RuntimeSettings | None = None) -> Runtime:
    """A runtime for `bundle`: as `settings` ask, or whatever suits this machine.

    Raises:
        BundleError: when the runtime cannot be loaded, or the bundle is not for it.
        ConfigError: when what is asked for is not there.
    """
    settings = settings or RuntimeSettings()
    choice = chosen(settings)
    with _imports_named(choice):
        if choice.runtime == "torch":
            from fieldfold.task.torch_runtime import TorchRuntime

            return TorchRuntime(bundle, device=choice.device, threads=settings.threads, reason=choice.reason)
        from fieldfold.task.onnx_runtime import OnnxRuntime

        return OnnxRuntime(bundle, providers=settings.providers, threads=settings.threads, reason=choice.reason)


def load_runtime(settings: RuntimeSettings) -> None:
    """Imports what `open_runtime` will need, and wakes the device.

    Raises:
        BundleError: when the runtime cannot be loaded.
        ConfigError: when what is asked for is not there.
    """
    choice = chosen(settings)
    with _imports_named(choice):
        if choice.runtime == "torch":
            from fieldfold.task import torch_runtime

            torch_runtime.wake(choice.device)
        else:
            import fieldfold.task.onnx_runtime  # noqa: F401 -- loading it is the purpose


@contextlib.contextmanager
def _imports_named(choice: Choice) -> Iterator[None]:
    package = "torch" if choice.runtime == "torch" else "onnxruntime"
    try:
        yield
    except ImportError as error:
        raise BundleError(f"{package} cannot be imported: {error}", f"install the package {package} again") from error


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an importer that refuses to say
        return False


def _torch_finds_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
