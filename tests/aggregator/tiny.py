"""A federation small enough to be worked out by hand: a linear model over two sensors, and what its nodes send."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import TensorProto, helper

from aggregator.config import AggregatorConfig, NormalisationConfig, ReleaseConfig
from aggregator.fold.contribution import Contribution
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.fold_settings import FoldSettings
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision, TaskRecord
from aggregator.model import GlobalModel
from aggregator.reception import Answer, Reception
from aggregator.verify.update import VerifyConfig
from fieldfold.codec import encode
from fieldfold.errors import WireError
from fieldfold.params import Layout, TensorSpec, Vector, as_vector, norm, to_bytes
from fieldfold.sensors.arrays import Array
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature
from fieldfold.task.bundle import Bundle, batch_bytes, pack
from fieldfold.task.manifest import LearningRate, Manifest, Metric, Optimizer, SectionName, SelfCheck
from fieldfold.trust.signing import Verifier
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import ClientUpdate
from fieldfold.wire.messages import pack as pack_message
from fieldfold.wire.topics import AGGREGATOR, Topics
from tests.identities import link_config, signer

FEDERATION = "plant"
TOPICS = Topics(FEDERATION)
FIRST = as_vector([0.5, -1.0, 0.25])
"""The first parameters: two weights and a bias."""
NUM_PARAMS = FIRST.size
CHUNK_BYTES = 4096
MAX_UPDATE_BYTES = 1 << 20
RUN, OTHER_RUN = "0000000000000001", "0000000000000002"
"""The first and the second that an aggregator of these tests draws."""


@cache
def bundle(name: str = "wear", normalisation: Literal["fleet", "none"] = "fleet") -> Bundle:
    """A task whose evaluation graph is real; nobody trains here, so the others are empty."""
    inputs, targets = (Array("x", "float32", (4, 2)),), (Array("y", "float32", (1,)),)
    manifest = Manifest(
        format=1,
        name=name,
        description="",
        kind="regression",
        data=DataSchema((Feature("heat"), Feature("flow")), 4, ColumnTarget("wear"), normalisation=normalisation),
        layout=Layout((TensorSpec("weight", (2, 1)), TensorSpec("bias", (1,)))),
        local=Layout(()),
        frozen=Layout(()),
        privacy=None,
        optimizer_state=(),
        inputs=inputs,
        targets=targets,
        outputs=(Array("output", "float32", (1,)),),
        metrics=(Metric("rmse", "lower", "root"),),
        optimizer=Optimizer("sgd"),
        learning_rate=LearningRate(0.1),
        batch_size=16,
        local_steps=1,
        proximal=0.0,
        clip_norm=0.0,
        self_check=SelfCheck((1.0,), 1.0, 0.1, 2),
        sections=(),
        producer="tests",
    )
    sections: dict[SectionName, bytes] = {
        "train.onnx": b"",
        "evaluate.onnx": _evaluate_graph(),
        "predict.onnx": b"",
        "programs.torch": b"",
        "parameters": to_bytes(FIRST),
        "self_check": bytes(batch_bytes((*inputs, *targets), 2)),
    }
    return Bundle.from_bytes(pack(manifest, sections))


def _evaluate_graph() -> bytes:
    """Squared error of (mean over the window) @ weight + bias."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "window"], ["means"], keepdims=0),
        helper.make_node("Split", ["parameters", "sizes"], ["weights", "bias"]),
        helper.make_node("Reshape", ["weights", "column"], ["weight"]),
        helper.make_node("MatMul", ["means", "weight"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["output"]),
        helper.make_node("Sub", ["output", "y"], ["error"]),
        helper.make_node("Mul", ["error", "error"], ["squares"]),
        helper.make_node("Squeeze", ["squares", "window"], ["loss"]),
        helper.make_node("Identity", ["loss"], ["metric.0"]),
    ]
    shapes: dict[str, list[int | str | None]] = {
        "parameters": [3],
        "x": ["batch", 4, 2],
        "y": ["batch", 1],
    }
    graph = helper.make_graph(
        nodes,
        "evaluate",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("loss", "metric.0")],
        [
            helper.make_tensor("window", TensorProto.INT64, [1], [1]),
            helper.make_tensor("sizes", TensorProto.INT64, [2], [2, 1]),
            helper.make_tensor("column", TensorProto.INT64, [2], [2, 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def payload(*delta: float) -> bytes:
    """An update's payload without loss."""
    return encode(as_vector(delta), "lossless")


def lossless_payload(*delta: float) -> bytes:
    """The same, laid out by hand, for values that the encoder refuses: head, stored stream, planes of bytes."""
    planes = np.frombuffer(to_bytes(as_vector(delta)), np.uint8).reshape(-1, 4).T.tobytes()
    return bytes([0x11, len(delta), len(planes), len(planes)]) + planes


def contribution(
    node: str, *delta: float, staleness: int = 0, num_examples: int = 100, drift: Vector | None = None
) -> Contribution:
    """What a method is given."""
    length = norm(as_vector(delta))
    return Contribution(node, payload(*delta), staleness, num_examples, length, drift)


def update(
    node: str = "press-1",
    sequence: int = 1,
    *,
    delta: tuple[float, ...] = (0.1, 0.2, 0.3),
    run: str = RUN,
    base_version: int = 0,
    num_examples: int = 100,
    num_steps: int = 20,
    train_loss: float = 0.5,
    trained_norm: float = 1.0,
    base_loss: float = 0.4,
    class_scores: tuple[tuple[float, int], ...] = (),
    body: bytes | None = None,
) -> ClientUpdate:
    """A sound update, but for what is said otherwise; `body` replaces the payload."""
    return ClientUpdate(
        node=node,
        sequence=sequence,
        run=bytes.fromhex(run),
        base_version=base_version,
        num_examples=num_examples,
        num_steps=num_steps,
        train_loss=train_loss,
        trained_norm=trained_norm,
        base_score=(1.0, 10),
        base_loss=base_loss,
        class_scores=class_scores,
        payload=payload(*delta) if body is None else body,
    )


def chunks(sent: ClientUpdate, chunk_bytes: int = CHUNK_BYTES, sender: str = "") -> list[bytes]:
    """The messages in which a node sends an update, signed by it, or by another sender."""
    body, node = pack_message(sent), sender or sent.node
    return list(cut(body, chunk_bytes, signer(node).seal(TOPICS.update(node), object_digest(body))))


def check(node: str, digest: str, seal: bytes) -> None:
    """Whether the node has sent the update with this digest."""
    Verifier(signer(node).public_key, node).check(TOPICS.update(node), digest, seal)


def accepted(update: ClientUpdate, staleness: int = 0) -> Decision:
    """The ledger's row for an update that was accepted."""
    body = pack_message(update)
    return Decision(
        task=bundle().digest,
        node=update.node,
        sequence=update.sequence,
        digest=object_digest(body),
        base_version=update.base_version,
        num_examples=update.num_examples,
        accepted=True,
        size_bytes=len(body),
        staleness=staleness,
        norm=1.0,
        num_params=NUM_PARAMS,
        body=body,
    )


class Plant:
    """Ledger, model and reception of one aggregator on disk, without its loop; `crash` takes all but the disk."""

    def __init__(self, path: Path, method: AnyMethod, *, profile: str = "int8", snapshot_every: int = 3) -> None:
        self.path, self.method = path, method
        self.profile, self.snapshot_every = profile, snapshot_every
        self.begun = False
        self._open()

    def _open(self) -> None:
        self.ledger = Ledger(self.path, FEDERATION)
        self.model = GlobalModel(bundle(), FoldSettings(self.method, self.profile), self.snapshot_every)
        self.reception = Reception(self.ledger, VerifyConfig(), MAX_UPDATE_BYTES, check)
        with self.ledger.transaction():
            self.reception.restore()
            if self.ledger.task() is None:
                self.ledger.add_task(TaskRecord(bundle().digest, "wear", bundle().data))
                self.model.begin(self.ledger, RUN)
            else:
                self.replayed = self.model.restore(self.ledger)

    def crash(self) -> None:
        """Ends without a word, and starts again from what is on disk."""
        self.ledger.close()
        self._open()

    def receive(self, message: bytes, node: str = "press-1") -> Answer | None:
        """One message, committed; not folded yet. What is no update is raised, as the loop logs it, afterwards."""
        with self.ledger.transaction():
            try:
                return self.reception.take(node, message, self.model)
            except WireError as caught:
                error = caught
            finally:
                self.reception.write()
        raise error

    def send(self, sent: ClientUpdate) -> Answer:
        """A whole update, committed; not folded yet."""
        answers = [self.receive(message, sent.node) for message in chunks(sent)]
        assert answers[-1] is not None
        return answers[-1]

    def fold(self) -> None:
        """Folds what was committed."""
        with self.ledger.transaction():
            list(self.model.catch_up(self.ledger))

    def digests(self) -> list[str]:
        """Of all versions that are written."""
        found = [self.ledger.version(bundle().digest, version) for version in range(self.model.version + 1)]
        return [record.parameters for record in found if record is not None]


@contextlib.contextmanager
def full_disk(ledger: Ledger) -> Iterator[None]:
    """The ledger's file may not grow: SQLite fails as it does on a full disk."""
    [(pages,)] = ledger._rows("PRAGMA page_count")
    ledger._rows(f"PRAGMA max_page_count = {pages}")
    yield
    ledger._rows("PRAGMA max_page_count = 1000000")


def config(fold: AnyMethod | None = None, *, snapshot_every: int = 3, nodes: int = 2) -> AggregatorConfig:
    """An aggregator's configuration; everything lies in the folder that the service is given."""
    return AggregatorConfig(
        federation=FEDERATION,
        broker=link_config(AGGREGATOR),
        state_dir="state",
        control_socket="control.sock",
        max_update_bytes=MAX_UPDATE_BYTES,
        fold=fold or FedBuff(buffer_size=2),
        release=ReleaseConfig("lossless", snapshot_every),
        normalisation=NormalisationConfig(nodes, patience_s=60),
    )


def random_delta(generator: np.random.Generator, scale: float = 0.1) -> tuple[float, ...]:
    """A delta such as training gives."""
    return tuple(float(value) for value in (scale * generator.standard_normal(NUM_PARAMS)).astype(np.float32))
