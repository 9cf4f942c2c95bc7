"""The server's side: FedAvg of all nodes, every round's model judged on the official test engines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.against_flower.work import NODES, kept
from fieldfold.task import RuntimeSettings, open_runtime
from fieldfold.task.bundle import Bundle

app = ServerApp()


def main(grid: Any, context: Any) -> None:
    """All rounds; a line about each goes into the file of marks."""
    config = context.run_config
    bundle = Bundle.read(Path(config["bundle"]))
    runtime = open_runtime(bundle, RuntimeSettings(runtime="onnx", threads=1))
    test = kept(Path(config["folder"]) / "test.npz", bundle).all()
    metric = bundle.manifest.metrics[0].name

    def mark(server_round: int, arrays: Any) -> None:
        score = runtime.evaluate(arrays["model"].numpy(), test).metrics[metric]
        line = json.dumps({"round": server_round, "at_s": time.time(), "score": score})
        with Path(config["marks"]).open("a", encoding="ascii") as file:
            file.write(line + "\n")

    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=len(NODES),
        min_available_nodes=len(NODES),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({"model": Array(bundle.initial_parameters())}),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout-s"]),
        evaluate_fn=mark,
    )


app.main()(main)
