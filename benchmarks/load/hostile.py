"""Everything a node can send: honest updates among mutations of them, reproducible from a seed."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from benchmarks.codec_fuzz import honest_payloads, mutate
from benchmarks.load.parties import Parties
from fieldfold.codec import decode, encode
from fieldfold.params import norm
from fieldfold.wire.chunks import cut, object_digest, short
from fieldfold.wire.messages import Chunk, ClientUpdate, NodePresence, Statistics, pack, write
from fieldfold.wire.topics import Topics

Message = tuple[str, bytes]

LONGEST = 100.0
"""An honest update is no longer than what verify.max_norm always allows; one rounded at random to error 20 may be."""
HONEST = tuple(f"gateway-{each}" for each in range(8))
ROGUES = tuple(f"rogue-{each}" for each in range(8))
REMEMBERED = 500
EXTREMES = (0, 1, -1, 0x7F, 2**15, 2**31 - 1, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
ODD: tuple[object, ...] = (
    *EXTREMES,
    None,
    True,
    "",
    "gateway-0",
    b"",
    b"\0" * 8,
    1e308,
    float("nan"),
    float("-inf"),
    [],
    {},
    [[[]]] * 9,
)
TOPICS = (
    "",
    "/",
    "fieldfold",
    "fieldfold/load/node",
    "fieldfold/load/node//update",
    "fieldfold/load/node/UPPER/update",
    "fieldfold/load/node/aggregator/update",
    "fieldfold/load/node/rogue-0/update/more",
    "fieldfold/other/node/rogue-0/update",
    "fieldfold/load/node/" + "n" * 200 + "/update",
    "a" * 300,
)


class Hostile:
    """An endless stream of messages; `newest` tells the version that honest nodes train from.

    The rogues are members too: most of what they send is signed, so that it is looked into.

    Attributes:
        honest: how many updates were sent whole, unchanged and within their rate.
        unanswered: (node, sequence) of those that nobody has called accepted.
        kinds: how many messages of each kind there were.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what honest nodes know
        self,
        num_params: int,
        topics: Topics,
        run: bytes,
        rng: random.Random,
        newest: Callable[[], int],
        parties: Parties,
    ) -> None:
        self._parties = parties
        self._num_params, self._topics, self._run, self._rng, self._newest = num_params, topics, run, rng, newest
        self._payloads = [each for each in honest_payloads(num_params) if norm(decode(each, num_params)) < LONGEST]
        self._sequences: collections.Counter[str] = collections.Counter()
        self._past: collections.deque[Message] = collections.deque(maxlen=REMEMBERED)
        self._turn = self._climbed = 0
        self.honest = 0
        self.unanswered: set[tuple[str, int]] = set()
        self.kinds: collections.Counter[str] = collections.Counter()
        self._ways: dict[str, Callable[[], list[Message]]] = {
            "changed bytes": self._changed_bytes,
            "changed fields": self._changed_fields,
            "changed chunk": self._changed_chunk,
            "claimed size": self._claimed_size,
            "changed payload": self._changed_payload,
            "never finished": self._never_finished,
            "cut differently": self._cut_differently,
            "of another node": self._of_another_node,
            "replayed": self._replayed,
            "flood": self._flood,
            "absurd norm": self._absurd_norm,
            "climbing norm": self._climbing_norm,
            "no update": self._no_update,
            "status or statistics": self._readable,
            "another topic": self._another_topic,
        }

    def messages(self) -> Iterator[Message]:
        """For ever: the kinds in random order, now and then an honest update between two hostile messages."""
        for member in (*HONEST, *ROGUES):
            topic = self._topics.key(member)
            yield from self._count("key", [(topic, self._parties.credential(member, topic))])
        names = list(self._ways)
        while True:
            if self._rng.random() < 0.1:
                yield from self._count("honest", self._honest())
            name = self._rng.choice(names)
            yield from self._count(name, self._ways[name]())

    def _count(self, kind: str, messages: list[Message]) -> Iterator[Message]:
        for message in messages:
            self.kinds[kind] += 1
            self._past.append(message)
            yield message

    # -- honest ones ---------------------------------------------------------------------------------------------

    def _honest(self) -> list[Message]:
        """In any order, with repetitions; the nodes in turn."""
        self._turn += 1
        node = HONEST[self._turn % len(HONEST)]
        update = self._update(node)
        self.honest += 1
        self.unanswered.add((node, update.sequence))
        pieces = self._pieces(update)
        repeated = pieces + self._rng.choices(pieces, k=self._rng.randrange(2))
        self._rng.shuffle(repeated)
        return [(self._topics.update(node), piece) for piece in repeated]

    def _update(self, node: str, payload: bytes | None = None) -> ClientUpdate:
        self._sequences[node] += 1
        return ClientUpdate(
            node=node,
            sequence=self._sequences[node],
            run=self._run,
            base_version=self._newest(),
            num_examples=self._rng.randint(1, 1000),
            num_steps=20,
            train_loss=0.5,
            trained_norm=2.0,
            base_score=(1.0, 100),
            base_loss=0.5,
            class_scores=(),
            payload=self._rng.choice(self._payloads) if payload is None else payload,
        )

    def _pieces(self, update: ClientUpdate) -> list[bytes]:
        return self._cut(update.node, pack(update), self._rng.choice((600, 2000, 60_000)))

    def _cut(self, sender: str, body: bytes, chunk_bytes: int) -> list[bytes]:
        """The pieces of an object that a node has signed."""
        seal = self._parties.signer(sender).seal(self._topics.update(sender), object_digest(body))
        return list(cut(body, chunk_bytes, seal))

    def _rogue(self) -> tuple[str, ClientUpdate]:
        name = self._rng.choice(ROGUES)
        return name, self._update(name)

    def _as_rogue(self, messages: list[bytes], name: str = "") -> list[Message]:
        topic = self._topics.update(name or self._rng.choice(ROGUES))
        return [(topic, message) for message in messages]

    # -- hostile ones --------------------------------------------------------------------------------------------

    def _changed_bytes(self) -> list[Message]:
        """Flipped, cut off, spliced, inserted: anywhere in a message."""
        rng, (name, update) = self._rng, self._rogue()
        message = bytearray(rng.choice(self._pieces(update)))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(message) + 1) if rng.random() < 0.5 else rng.randrange(40)
            match rng.randrange(4):
                case 0:
                    message[place : place + 1] = bytes([rng.randrange(256)])
                case 1:
                    del message[place:]
                case 2:
                    message[place:place] = rng.randbytes(rng.randint(1, 8))
                case _:
                    message[place : place + 5] = b"\xdd" + rng.choice((b"\xff", b"\x7f", b"\0")) * 4
        return self._as_rogue([bytes(message)], name)

    def _changed_fields(self) -> list[Message]:
        """An update with fields of any type and size in a sound envelope."""
        name, update = self._rogue()
        fields: list[object] = [1, *msgspec.structs.astuple(update)[1:]]
        for _ in range(self._rng.randint(1, 2)):
            fields[self._rng.randrange(len(fields))] = self._rng.choice(ODD)
        return self._as_rogue(self._cut(name, msgspec.msgpack.encode(fields), 60_000), name)

    def _changed_chunk(self) -> list[Message]:
        """The same for the envelope."""
        _, update = self._rogue()
        chunk = msgspec.msgpack.decode(self._rng.choice(self._pieces(update)))
        chunk[self._rng.randrange(len(chunk))] = self._rng.choice(ODD)
        return self._as_rogue([msgspec.msgpack.encode(chunk)])

    def _claimed_size(self) -> list[Message]:
        """A well-formed chunk of an object that is as large as it likes."""
        total, size, index = (abs(self._rng.choice(EXTREMES)) % 2**64 for _ in range(3))
        data = self._rng.randbytes(min(size, self._rng.choice((0, 1, 1000))))
        return self._as_rogue([msgspec.msgpack.encode([1, self._rng.randbytes(8), total, size, index, data])])

    def _changed_payload(self) -> list[Message]:
        name = self._rng.choice(ROGUES)
        payload = mutate(self._rng.choice(self._payloads), self._rng.choice(self._payloads), self._rng)
        return [(self._topics.update(name), piece) for piece in self._pieces(self._update(name, payload))]

    def _never_finished(self) -> list[Message]:
        _, update = self._rogue()
        return self._as_rogue(list(cut(pack(update), self._rng.choice((16, 64, 600))))[:-1][:20])

    def _cut_differently(self) -> list[Message]:
        """The same object twice, the pieces mixed: they overlap."""
        name, update = self._rogue()
        pieces = [*self._cut(name, pack(update), 700), *self._cut(name, pack(update), 500)]
        self._rng.shuffle(pieces)
        return [(self._topics.update(name), piece) for piece in pieces]

    def _of_another_node(self) -> list[Message]:
        name, update = self._rogue()
        forged = pack(msgspec.structs.replace(update, node=self._rng.choice(HONEST)))
        return self._as_rogue(self._cut(name, forged, 2000), name)

    def _replayed(self) -> list[Message]:
        """What was sent before, by whom it was or by another."""
        if not self._past:
            return []
        topic, message = self._rng.choice(self._past)
        return [(topic, message)] if self._rng.random() < 0.5 else self._as_rogue([message])

    def _flood(self) -> list[Message]:
        """The same number again and again, for another update each time."""
        name, update = self._rogue()
        changed = [msgspec.structs.replace(update, num_examples=each + 1) for each in range(self._rng.randint(3, 12))]
        return [
            (self._topics.update(name), piece) for each in changed for piece in self._cut(name, pack(each), 60_000)
        ]

    def _absurd_norm(self) -> list[Message]:
        """Valid, and as long as float32 allows, or a little longer than what came before."""
        name = self._rng.choice(ROGUES)
        payload = self._one_large(self._rng.choice((50.0, 99.0, 1e4, 1e10, 1e20, 1e29, 3e38)))
        return [(self._topics.update(name), piece) for piece in self._pieces(self._update(name, payload))]

    def _climbing_norm(self) -> list[Message]:
        """One node sends a few of one length, and then some ninety times as long."""
        self._climbed = self._climbed % 1000 + 1
        payload = self._one_large(min(3e38, 0.9 * 90.0 ** (self._climbed / 50)))
        update = self._update(ROGUES[0], payload)
        return [(self._topics.update(ROGUES[0]), piece) for piece in self._pieces(update)]

    def _one_large(self, length: float) -> bytes:
        delta = np.zeros(self._num_params, np.float32)
        delta[self._rng.randrange(self._num_params)] = length
        return encode(delta, "lossless" if length > 1e29 else self._rng.choice(("lossless", "int8", "balanced")))

    def _no_update(self) -> list[Message]:
        """A sound object of another kind, or of no kind at all."""
        data = self._rng.choice((self._rng.randbytes(50), b"\x91" * self._rng.randint(1, 3000), b"\xc0", b"{}" * 99))
        if self._rng.random() < 0.5:
            return self._as_rogue([data])
        chunk = Chunk(digest=short(object_digest(data)), total_bytes=len(data), chunk_bytes=9999, index=0, data=data)
        return self._as_rogue([pack(chunk)])

    def _readable(self) -> list[Message]:
        rng, name = self._rng, self._rng.choice(ROGUES)
        values = tuple(rng.choice((0.0, 1e308, -1.0, 5.0)) for _ in range(rng.choice((0, 2, 512))))
        data = rng.choice((
            write(Statistics(issued=1, task="0" * 64, count=values, total=values, total_of_squares=values)),
            write(NodePresence(node=name, state="training")) if rng.random() < 0.5 else b"",
            b'{"a":' * rng.randint(1, 5000),
            b"[" * rng.randint(1, 5000),
            b'{"format":1,"node":"rogue-0","state":"x","version":%d}' % 2**rng.choice((31, 53, 64, 70)),
            rng.randbytes(rng.randint(0, 70_000)),
        ))  # fmt: skip
        topic = rng.choice((self._topics.status(name), self._topics.statistics(name)))
        is_signed = rng.random() < 0.7 and topic == self._topics.statistics(name)
        return [(topic, self._parties.signer(name).message(topic, data) if is_signed else data)]

    def _another_topic(self) -> list[Message]:
        _, update = self._rogue()
        return [(self._rng.choice(TOPICS), self._rng.choice(self._pieces(update)))]
