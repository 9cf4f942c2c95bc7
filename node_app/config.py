"""node.toml, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fieldfold import settings
from fieldfold.codec import PROFILES
from fieldfold.errors import ConfigError
from fieldfold.link.session import LinkConfig
from fieldfold.sensors.source import DataConfig
from fieldfold.task import RuntimeSettings
from fieldfold.wire.topics import check_node_name


class TrainingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[training]` table.

    Attributes:
        enabled: false makes a gateway that only follows the model.
        steps_per_update: optimizer steps an update; 0 takes the task's.
        epochs_per_update: passes over the training windows an update; 0 counts steps instead.
        longest_s: an update holds what was trained in so many seconds, where that is less; 0 for no limit.
        proximal: FedProx's mu; left out, the task's.
        personal: Ditto's lambda, the pull of the fleet's model on one of the gateway's own; 0 is none of its own.
        clip_norm: limit of the gradient's norm; left out, the task's.
        keep_optimizer: whether the optimizer's state outlives an update.
        max_steps_per_s: holds training back, so that the box stays cool; 0 is as fast as it goes.
        wait_for_version_s: having sent an update, train again on the same version after this long without a newer.
        runtime: `auto` takes torch where a CUDA device is, else ONNX Runtime, else torch on the CPU.
        device: where torch computes.
        providers: ONNX Runtime's execution providers, the preferred first.
        threads: of the runtime.
        seed: of batches and dropout; the node's name is mixed in.
    """

    enabled: bool = True
    steps_per_update: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    epochs_per_update: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    longest_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    proximal: Annotated[float, msgspec.Meta(ge=0)] | None = None
    personal: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    clip_norm: Annotated[float, msgspec.Meta(ge=0)] | None = None
    keep_optimizer: bool = False
    max_steps_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    wait_for_version_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    runtime: Literal["auto", "onnx", "torch"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    providers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)] = ("CPUExecutionProvider",)
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0

    def runtime_settings(self) -> RuntimeSettings:
        """What of it concerns the runtime."""
        return RuntimeSettings(self.runtime, self.device, self.providers, self.threads)


class CodecConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[codec]` table: the profile that updates are encoded with."""

    profile: str = "balanced"


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        name: the node's; with TLS it must be the name in its certificate.
        federation: first part of every topic after `fieldfold/`.
        state_dir: where the node's database lies, relative to the file.
        control_socket: Unix socket for status and commands; empty for the default place.
        renew_certificate: ask the caretaker beside the broker for the next certificate well before the present one
            ends; false where the plant's own authority renews it.
    """

    name: str
    federation: str
    broker: LinkConfig
    data: DataConfig
    state_dir: str = "/var/lib/fieldfold/node"
    control_socket: str = ""
    renew_certificate: bool = True
    training: TrainingConfig = TrainingConfig()
    codec: CodecConfig = CodecConfig()


def load(path: Path) -> NodeConfig:
    """Reads and checks node.toml.

    Raises:
        ConfigError: naming file, key and allowed values.
    """
    config = settings.load(path, NodeConfig)
    try:
        check_node_name(config.name)
    except ConfigError as error:
        raise ConfigError(f"{path}: name: {error.reason}", error.hint) from None
    if config.codec.profile not in PROFILES:
        raise ConfigError(
            f"{path}: codec.profile: there is no profile {config.codec.profile!r}",
            f"allowed here: {', '.join(PROFILES)}",
        )
    return config
