"""The node's side: the same local run as fieldfold's, and what a faulty one would send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.against_flower.work import SLOW, Work, kept, run_locally
from fieldfold.task.bundle import Bundle

app = ClientApp()
FAULTY_ROUND = 2


def train(message: Any, context: Any) -> Any:
    """One round of one node."""
    config, node = context.run_config, str(context.node_config["node"])
    version = int(message.content["config"]["server-round"]) - 1
    start = message.content["arrays"]["model"].numpy()
    work = Work(int(config["seed"]), int(config["steps"]), float(config["run-s"]), bool(config["straggler"]))
    model, num_examples = start, 1
    if work.steps:
        bundle = Bundle.read(Path(config["bundle"]))
        windows = kept(Path(config["folder"]) / f"{node}.npz", bundle)
        model = start + run_locally(bundle, windows, work, node=node, start=start, version=version).delta
        num_examples = len(windows)
    if node == SLOW and version + 1 == FAULTY_ROUND:
        model, num_examples = spoilt(str(config["fault"]), model, num_examples)
    arrays = ArrayRecord({"model": Array(model)})
    metrics = MetricRecord({"num-examples": num_examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


app.train()(train)


def spoilt(fault: str, model: Any, num_examples: int) -> tuple[Any, int]:
    """What a node with that fault sends."""
    match fault:
        case "NaN":
            return np.full_like(model, np.nan), num_examples
        case "wrong shape":
            return model[:-1], num_examples
        case "one value":
            return model[:1], num_examples
        case "negative examples":
            return model, -num_examples
        case _:
            return model, num_examples
