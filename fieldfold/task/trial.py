"""A bundle's first self-check on this machine, in a process of its own that may crash, eat and dawdle within limits.

ONNX Runtime and torch are large; a graph made for it can crash them or work for ever, and would take the daemon with
it. So the first time everything is tried in a child: loading, the steps of the self-check, evaluation, prediction.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys

import msgspec
import psutil

from fieldfold.errors import BundleError, ConfigError, FieldfoldError
from fieldfold.task.bundle import Bundle
from fieldfold.task.opening import RuntimeSettings, load_runtime, open_runtime
from fieldfold.task.self_check import read_batch

LEAST_MEMORY_BYTES = 256 << 20
_WALL_FACTOR = 10
"""A busy box gives the child a tenth of a core at times; only one that sleeps takes longer."""
_WHEN_TRIED = "do not use this bundle; ask whoever published it"


class Limits(msgspec.Struct, frozen=True):
    """What the child may use.

    Attributes:
        cpu_s: seconds of processor time.
        memory_bytes: memory that it writes to beside what the loaded runtime takes; 0 is half of the machine's.
    """

    cpu_s: int = 300
    memory_bytes: int = 0


class _Order(msgspec.Struct, frozen=True):
    settings: RuntimeSettings
    limits: Limits


class _Refusal(msgspec.Struct, frozen=True):
    """An error on its way from the child: `config` when it is the configuration's."""

    reason: str
    hint: str
    config: bool


def try_out(bundle: Bundle, settings: RuntimeSettings, limits: Limits | None = None) -> None:
    """Runs the self-check and a prediction in a child.

    Raises:
        BundleError: when the bundle fails it, crashes the runtime, or does not end within the limits.
        ConfigError: when the runtime that is asked for is not there.
    """
    limits = limits or Limits()
    memory = limits.memory_bytes or max(LEAST_MEMORY_BYTES, psutil.virtual_memory().total // 2)
    limits = Limits(limits.cpu_s, memory)
    order = msgspec.json.encode(_Order(settings, limits)).decode()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fieldfold.task.trial", order],
            input=bundle.data,
            capture_output=True,
            check=False,
            timeout=limits.cpu_s * _WALL_FACTOR,
        )
    except subprocess.TimeoutExpired:
        raise _endless(limits) from None
    except OSError as error:
        raise BundleError(f"the bundle cannot be tried out: {error.strerror}", "free memory or processes") from error
    if done.returncode == 0:
        return
    with contextlib.suppress(msgspec.MsgspecError):
        refusal = msgspec.json.decode(done.stdout, type=_Refusal)
        raise (ConfigError if refusal.config else BundleError)(refusal.reason, refusal.hint)
    if done.returncode == -signal.SIGXCPU:
        raise _endless(limits)
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    how = ": ".join([_how(done.returncode), *said])[:300]
    raise BundleError(f"self-check: the bundle crashes the runtime here ({how})", _WHEN_TRIED)


def _endless(limits: Limits) -> BundleError:
    return BundleError(f"self-check: it does not end within {limits.cpu_s} s of processor time", _WHEN_TRIED)


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"it ended with {returncode}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"signal {-returncode}"


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _child(order: _Order) -> None:
    settings, limits = order.settings, order.limits
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits.cpu_s)
    # the limit is for the bundle: torch alone maps 190 MB, and with CUDA far more, and how it fails to load is chance
    load_runtime(settings)
    _limit(resource.RLIMIT_DATA, psutil.Process().memory_info().data + limits.memory_bytes)
    bundle = Bundle.from_bytes(sys.stdin.buffer.read())
    runtime = open_runtime(bundle, settings)
    runtime.self_check()
    runtime.predict(bundle.initial_parameters(), read_batch(bundle))


def main() -> int:
    """The child: the order is its argument, the bundle its input; a refusal goes out as JSON."""
    try:
        _child(msgspec.json.decode(sys.argv[1], type=_Order))
    except FieldfoldError as error:
        refusal = _Refusal(error.reason, error.hint, isinstance(error, ConfigError))
    except MemoryError:
        refusal = _Refusal("self-check: the bundle needs more memory than it may use here", _WHEN_TRIED, config=False)
    else:
        return 0
    sys.stdout.buffer.write(msgspec.json.encode(refusal))
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
