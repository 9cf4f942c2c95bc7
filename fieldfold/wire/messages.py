"""Every message that crosses the broker, as frozen structures with their limits.

Messages for people are JSON objects; those with tensors are MessagePack arrays, fields in the order below.
Decoding checks types and bounds, so that what comes out can be used as it is.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

import msgspec

from fieldfold.errors import WireError

FORMAT: Final = 1
MAX_OBJECT_BYTES = 1 << 30
MAX_CHUNKS = 1 << 16
"""Of an object: what it takes in memory beside its bytes stays small, however finely it was cut."""
MAX_JSON_BYTES = 60 * 1024
MAX_COUNTER = (1 << 53) - 1

Counter = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNTER)]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECT_BYTES)]
ShortDigest = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
"""The first 8 bytes of a SHA-256: binary messages name things by these, readable ones by the whole in hex."""
HexDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
RunId = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
"""Names one unbroken history of a model, from version 0 in one ledger; random, so that no two are ever mixed up."""
HexRunId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=500)]
RejectionCode = Literal["invalid", "stale", "ahead", "other_run", "no_model", "sequence_used", "too_many", "excluded"]
ClassScores = Annotated[tuple[tuple[float, Counter], ...], msgspec.Meta(max_length=256)]
Sums = Annotated[tuple[float, ...], msgspec.Meta(max_length=512)]


class Binary(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A MessagePack array; a reader ignores elements beyond those it knows."""


class Readable(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object; a reader ignores keys that it does not know."""


class Chunk(Binary, frozen=True, kw_only=True):
    """One piece of a larger object; the object is named by its digest.

    Attributes:
        digest: of the whole object.
        total_bytes: size of the whole object.
        chunk_bytes: size of every piece but the last.
        index: from 0; the piece begins at index x chunk_bytes.
        seal: of the whole object, by who made it, with its first piece; empty where a manifest names the digest.
    """

    format: Literal[1] = FORMAT
    digest: ShortDigest
    total_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_OBJECT_BYTES)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_OBJECT_BYTES)]
    index: Counter
    data: bytes
    seal: bytes = b""

    @property
    def num_chunks(self) -> int:
        """How many pieces the object has."""
        return -(-self.total_bytes // self.chunk_bytes)


class ClientUpdate(Binary, frozen=True, kw_only=True):
    """What a node learned, as it stands in the outbox, on the wire and in the ledger.

    Attributes:
        node: the sender; must be the name in the topic.
        sequence: rises by one with each update of this node; (node, sequence) is unique.
        run: the model's run that it was trained in.
        base_version: the model version the delta is against.
        num_examples: training examples the node holds.
        num_steps: optimizer steps in this delta.
        train_loss: mean training loss over those steps.
        trained_norm: Euclidean norm of what the payload stands for, before it was quantised.
        base_score: the deciding metric of the base version on the node's own validation data, with the number
            of examples it was taken on; zero examples when it has none.
        base_loss: mean loss of the base version on the same examples; 0 when there are none.
        class_scores: `base_score` over the examples of each class, in the task's order; empty where the task has no
            classes that are scored apart, or the node no examples.
        payload: the encoded delta; see "Payload" in docs/WIRE_FORMAT.md.
    """

    format: Literal[1] = FORMAT
    node: Name
    sequence: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNTER)]
    run: RunId
    base_version: Counter
    num_examples: int
    num_steps: Counter
    train_loss: float
    trained_norm: float
    base_score: tuple[float, Counter]
    base_loss: float
    class_scores: ClassScores
    payload: bytes


class ModelSnapshot(Binary, frozen=True, kw_only=True):
    """The whole model at one version.

    Attributes:
        parameters: digest of the decoded parameters (SHA-256 over little-endian float32).
        payload: the parameters, encoded without loss.
    """

    format: Literal[1] = FORMAT
    run: RunId
    version: Counter
    parameters: ShortDigest
    payload: bytes


class ModelDelta(Binary, frozen=True, kw_only=True):
    """What leads from version - 1 to `version`; `parameters` is the digest after it was added."""

    format: Literal[1] = FORMAT
    run: RunId
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNTER)]
    parameters: ShortDigest
    payload: bytes


class TaskManifest(Readable, frozen=True, kw_only=True):
    """Which task the federation works on and where its bundle is; `issued` as in ModelManifest."""

    format: Literal[1] = FORMAT
    issued: Counter
    name: Text
    digest: HexDigest
    size_bytes: Size
    chunk_bytes: Size


class SnapshotPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a ModelSnapshot stands, and how to know it."""

    version: Counter
    slot: Counter
    digest: HexDigest
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_OBJECT_BYTES)]


class ModelManifest(Readable, frozen=True, kw_only=True):
    """The newest version and the cheapest way to it.

    Attributes:
        issued: higher than in all that the aggregator has issued before; who has seen a newer one takes no older.
        task: digest of the bundle.
        run: the run that all versions belong to.
        parameters: digest of the parameters at `version`.
        deltas_from: who holds this version of the run or a newer one takes deltas; who holds less takes the snapshot
            first. At 0 nobody needs a snapshot: version 0 is the bundle's own parameters.
        delta_slots: the delta to version v stands in slot v modulo this.
        snapshot: None while deltas_from is 0.
        mean, std: normalisation of the features; empty where the task uses none.
        score: held-out score of the newest evaluated version.
    """

    format: Literal[1] = FORMAT
    issued: Counter
    task: HexDigest
    run: HexRunId
    version: Counter
    parameters: HexDigest
    deltas_from: Counter
    delta_slots: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_OBJECT_BYTES)]
    snapshot: SnapshotPlace | None = None
    mean: Sums = ()
    std: Sums = ()
    score: float | None = None
    released_at: Text = ""


class Statistics(Readable, frozen=True, kw_only=True):
    """Sums over the node's training rows, per feature in the task's order, missing values left out.

    `issued` rises with each that the node sends; the aggregator takes no older one.
    """

    format: Literal[1] = FORMAT
    issued: Counter
    task: HexDigest
    count: Sums
    total: Sums
    total_of_squares: Sums


class Receipt(Readable, frozen=True, kw_only=True):
    """What became of an update; sent only after the decision is on the aggregator's disk.

    Attributes:
        update: digest of the update that was decided on.
        decision: `deferred` says that nothing was decided: the node sends it again, later.
        code: why it was rejected, for programs: `reason` is for people.
        staleness: versions between the update's base and the newest at its arrival.
        weight: the update's weight in the step it went into; None while it waits in a buffer.
        version: the newest version when the receipt was written.
        next_sequence: the lowest sequence number the aggregator has not seen from this node.
    """

    format: Literal[1] = FORMAT
    sequence: Counter
    update: HexDigest
    decision: Literal["accepted", "rejected", "deferred"]
    code: RejectionCode | None = None
    reason: Text = ""
    hint: Text = ""
    staleness: Counter = 0
    weight: float | None = None
    version: Counter = 0
    next_sequence: Counter = 0


class Command(Readable, frozen=True, kw_only=True):
    """Something asked of a node from beside the broker; `issued` as in ModelManifest, and no two have the same."""

    format: Literal[1] = FORMAT
    issued: Counter
    command: Literal["pause", "resume", "resend_statistics"]
    by: Text = ""


class NodePresence(Readable, frozen=True, kw_only=True):
    """What a node says of itself on its status topic; the will says `offline`."""

    format: Literal[1] = FORMAT
    node: Text
    state: Text
    detail: Text = ""
    version: Counter | None = None
    software: Text = ""
    loss: float | None = None
    score: float | None = None
    metric: Text = ""
    accepted: Counter = 0
    rejected: Counter = 0
    outbox: Counter = 0
    bytes_up: Counter = 0
    bytes_down: Counter = 0
    steps_per_s: float | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregator's claim to be the one of its federation.

    Attributes:
        ledger: the ledger's name, random, as long as it lives.
        term: above all that the aggregator knew of when it began.
        holder: this process, random.
        host: its machine, for people.
    """

    ledger: Text
    term: Counter
    holder: Text
    host: Text = ""


class AggregatorPresence(Readable, frozen=True, kw_only=True):
    """What the aggregator says of itself on its status topic; the will says `offline`.

    Attributes:
        lease: which of the aggregators that might be it is; `offline`, it was.
    """

    format: Literal[1] = FORMAT
    state: Text
    detail: Text = ""
    version: Counter | None = None
    nodes_online: Counter = 0
    nodes_known: Counter = 0
    accepted: Counter = 0
    rejected: Counter = 0
    score: float | None = None
    metric: Text = ""
    software: Text = ""
    lease: Lease | None = None


BinaryMessage = TypeVar("BinaryMessage", bound=Binary)
ReadableMessage = TypeVar("ReadableMessage", bound=Readable)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes from anybody; the last for values nested by the thousand in a field we pass over."""

_to_msgpack = msgspec.msgpack.Encoder()
_to_json = msgspec.json.Encoder()


def pack(message: Binary) -> bytes:
    """The MessagePack form of a binary message."""
    return _to_msgpack.encode(message)


def unpack(kind: type[BinaryMessage], data: bytes) -> BinaryMessage:
    """Reads a binary message and checks its bounds.

    Raises:
        WireError: when `data` is not such a message.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except _UNREADABLE as error:
        raise WireError(f"not a {kind.__name__}: {error}") from None


def write(message: Readable) -> bytes:
    """The JSON form of a readable message.

    Raises:
        WireError: when it would exceed MAX_JSON_BYTES.
    """
    data = _to_json.encode(message)
    if len(data) > MAX_JSON_BYTES:
        raise WireError(f"a {type(message).__name__} of {len(data)} bytes, at most {MAX_JSON_BYTES} are allowed")
    return data


def read(kind: type[ReadableMessage], data: bytes) -> ReadableMessage:
    """Reads a JSON message and checks its bounds.

    Raises:
        WireError: when `data` is not such a message.
    """
    if len(data) > MAX_JSON_BYTES:
        raise WireError(f"a {kind.__name__} of {len(data)} bytes, at most {MAX_JSON_BYTES} are allowed")
    try:
        return msgspec.json.decode(data, type=kind)
    except _UNREADABLE as error:
        raise WireError(f"not a {kind.__name__}: {error}") from None
