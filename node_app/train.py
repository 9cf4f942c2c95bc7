"""When and how long to train: the task's plan, and where the configuration says otherwise."""

from __future__ import annotations

from fieldfold.task.local_training import Plan
from fieldfold.task.manifest import Manifest
from node_app.config import TrainingConfig


def plan_run(manifest: Manifest, config: TrainingConfig, version: int, num_windows: int, seed: int) -> Plan:
    """The run that starts from `version`; the configuration overrides the task where it says something."""
    if config.epochs_per_update:
        steps = config.epochs_per_update * (num_windows // manifest.batch_size)
    else:
        steps = config.steps_per_update or manifest.local_steps
    return Plan(
        num_steps=steps,
        longest_s=config.longest_s,
        batch_size=manifest.batch_size,
        learning_rate=manifest.learning_rate.at(version),
        proximal=manifest.proximal if config.proximal is None else config.proximal,
        clip_norm=manifest.clip_norm if config.clip_norm is None else config.clip_norm,
        seed=seed,
        keep_optimizer=config.keep_optimizer,
        max_steps_per_s=config.max_steps_per_s,
        noise_std=manifest.privacy.norm * manifest.privacy.noise_multiplier if manifest.privacy else 0.0,
        num_trained=manifest.num_trained,
    )
