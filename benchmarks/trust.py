"""What signatures and certificates cost the aggregator, as a share of its processor time for an update.

Updates of the default codec go through the aggregator's own intake and fold, on a real ledger, with one version every
ten updates; then the parts that are there for trust alone are measured by themselves: the seal of each update that is
verified, the receipt, deltas and manifest that are signed, and a node's credential, once in CONNECTION updates.
MQTT and TLS records are not in it: they would make the share smaller. The handshake is the broker's and a node's.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from aggregator.config import ReleaseConfig
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold_settings import FoldSettings
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import TaskRecord
from aggregator.model import GlobalModel
from aggregator.reception import Reception
from aggregator.release import publish
from aggregator.verify.update import VerifyConfig
from benchmarks.load.parties import Parties
from benchmarks.load.site import FEDERATION
from benchmarks.load.task import bundle, payloads
from benchmarks.load.usage import median
from broker_config.folder import BrokerFolder
from fieldfold.trust.credentials import examine
from fieldfold.trust.signing import Verifier
from fieldfold.trust.tls import client_context
from fieldfold.wire.chunks import chunk_size, cut, object_digest
from fieldfold.wire.messages import ClientUpdate, Receipt, pack, write
from fieldfold.wire.topics import AGGREGATOR, Topics

NODE, TOPICS = "press-07", Topics(FEDERATION)
RUN = "00000000000000aa"
BUFFER = 10
"""Updates that make a version."""
CONNECTION = 100
"""Updates between two connections of a node."""
UNLIKE = 8
MESSAGE_BYTES = 60 * 1024
REPEATS = 400
WANTED_PERCENT = 2.0


class Cost(msgspec.Struct, frozen=True):
    """Microseconds of processor time; `update_us` is all of an update, with its seal, without what is sent."""

    num_params: int
    update_bytes: int
    update_us: float
    verify_us: float
    receipt_us: float
    delta_us: float
    credential_us: float
    handshake_us: float
    share_percent: float
    wanted_percent: float = WANTED_PERCENT


def timed_us(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Processor time of one call: the median over batches."""
    found = []
    for _ in range(8):
        begun = time.process_time()
        for _ in range(repeats // 8):
            work()
        found.append((time.process_time() - begun) / (repeats // 8))
    return median(found) * 1e6


def updates_us(folder: Path, parties: Parties, num_params: int, count: int) -> tuple[float, bytes]:
    """Processor time of an update through intake and fold, and one update's body."""
    task, verifier = bundle(num_params), Verifier(parties.signer(NODE).public_key, NODE)
    ledger = Ledger(folder / "ledger.sqlite", FEDERATION)
    model = GlobalModel(task, FoldSettings(FedBuff(buffer_size=BUFFER), ReleaseConfig().profile))
    topic = TOPICS.update(NODE)
    reception = Reception(
        ledger, VerifyConfig(max_per_minute=0), 64 << 20, lambda _, digest, seal: verifier.check(topic, digest, seal)
    )
    with ledger.transaction():
        ledger.add_task(TaskRecord(task.digest, task.manifest.name, task.data))
        model.begin(ledger, RUN)
    deltas, spent, body = payloads(num_params, UNLIKE), [], b""
    for sequence in range(1, count + 1):
        body = pack(
            ClientUpdate(
                node=NODE,
                sequence=sequence,
                run=bytes.fromhex(RUN),
                base_version=model.version,
                num_examples=1000,
                num_steps=20,
                train_loss=0.5,
                trained_norm=2.0,
                base_score=(1.0, 100),
                base_loss=0.5,
                class_scores=(),
                payload=deltas[sequence % UNLIKE],
            )
        )
        seal = parties.signer(NODE).seal(topic, object_digest(body))
        pieces = list(cut(body, chunk_size(MESSAGE_BYTES), seal))
        begun = time.process_time()
        with ledger.transaction():
            for piece in pieces:
                reception.take(NODE, piece, model)
            reception.write()
        with ledger.transaction():
            list(model.catch_up(ledger))
        spent.append(time.process_time() - begun)
    ledger.close()
    return sum(spent[BUFFER:]) / len(spent[BUFFER:]) * 1e6, body


def handshake_us(parties: Parties, root: Path) -> float:
    """Both sides of a mutual TLS handshake, in memory."""
    folder, files = BrokerFolder(root), parties.files(NODE)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder.server_certificate, folder.server_key)
    server.load_verify_locations(folder.ca_certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    client = client_context(files.ca, files.certificate, files.key)

    def shake() -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = client.wrap_bio(down, up, server_hostname="localhost")
        far = server.wrap_bio(up, down, server_side=True)
        for side in (near, far, near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue

    return timed_us(shake, 80)


def measure(num_params: int, updates: int) -> Cost:
    """All of it, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fieldfold-trust-") as scratch:
        folder = Path(scratch)
        parties = Parties(folder / "identities")
        update_us, body = updates_us(folder, parties, num_params, updates)
        node, aggregator = parties.signer(NODE), parties.signer(AGGREGATOR)
        topic, digest = TOPICS.update(NODE), object_digest(body)
        seal, verifier = node.seal(topic, digest), Verifier(node.public_key, NODE)
        receipt = write(Receipt(sequence=1, update=digest, decision="accepted"))
        shown, authority = parties.credential(NODE, TOPICS.key(NODE)), [parties.authority.certificate]
        parts = {
            "verify_us": timed_us(lambda: verifier.check(topic, digest, seal)),
            "receipt_us": timed_us(lambda: aggregator.message(TOPICS.receipt(NODE), receipt)),
            "delta_us": timed_us(lambda: publish.seal_of(TOPICS, aggregator, body)),
            "credential_us": timed_us(lambda: examine(shown, TOPICS.key(NODE), NODE, authority)),
        }
        a_version = parts["delta_us"] + parts["receipt_us"]  # its delta and its manifest
        trust_us = parts["verify_us"] + parts["receipt_us"] + a_version / BUFFER + parts["credential_us"] / CONNECTION
        all_us = update_us + trust_us - parts["verify_us"]
        shake_us = handshake_us(parties, folder / "identities")
    return Cost(
        num_params, len(body), update_us, **parts, handshake_us=shake_us, share_percent=100 * trust_us / all_us
    )


def main() -> None:
    """Prints a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--num-params", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=210)
    chosen = parser.parse_args()
    cost = measure(chosen.num_params, chosen.updates)
    for name, value in msgspec.structs.asdict(cost).items():
        print(f"  {name:<16} {value:>12,.1f}")
    result = {"benchmark": "trust", **{key: round(each, 2) for key, each in msgspec.structs.asdict(cost).items()}}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
