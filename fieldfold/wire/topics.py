"""The topic tree of a federation. At most 6 levels and 200 bytes, so that every managed broker takes it.

fieldfold/F/task/manifest               retained JSON: which task, how large
fieldfold/F/task/bundle/D/I             retained chunk I of the bundle with digest prefix D
fieldfold/F/model/manifest              retained JSON: newest version, newest snapshot
fieldfold/F/model/snapshot/S/I          retained chunk I of the whole model, in slot S
fieldfold/F/model/delta/S/I             retained chunk I of what leads from one version to the next, in slot S
fieldfold/F/model/live/I                chunk I of the newest delta, as it is released; not retained
fieldfold/F/aggregator/status           retained JSON, with a will
fieldfold/F/aggregator/key              retained: the key that the aggregator signs with
fieldfold/F/node/N/key                  retained: the key that the node signs with
fieldfold/F/node/N/update               chunks of client updates            node -> aggregator
fieldfold/F/node/N/statistics           JSON: sums of the node's features   node -> aggregator
fieldfold/F/node/N/status               retained JSON, with a will          node -> people
fieldfold/F/node/N/receipt              JSON: what became of an update      aggregator -> node
fieldfold/F/node/N/command              JSON: what is asked of the node     aggregator -> node
fieldfold/F/node/N/renewal              JSON: a certificate ends soon       node -> broker's caretaker
fieldfold/F/node/N/certificate          JSON: the one that follows it       broker's caretaker -> node
fieldfold/F/enrol/I/request             JSON: a key to be signed            invited gateway -> broker's caretaker
fieldfold/F/enrol/I/answer              JSON: its certificate, or why not   broker's caretaker -> invited gateway

Who follows the model takes the live chunks; who has missed some reads them from the slots, which are used in turn.
"""

from __future__ import annotations

import re

from fieldfold.errors import ConfigError, WireError

ROOT = "fieldfold"
NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
FEDERATION_NAME = NODE_NAME
AGGREGATOR = "aggregator"
"""Its name in its certificate."""
RESERVED_NAMES = frozenset({AGGREGATOR, "observer", "broker", "server", "ca"})
RESERVED_PREFIX = "bridge"


def check_node_name(name: str) -> str:
    """`name` itself when a node may bear it.

    Raises:
        ConfigError: for anything that is not lower-case letters, digits and hyphens, or is reserved.
    """
    if not NODE_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a node name", "use 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit"
        )
    if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIX):
        raise ConfigError(f"the node name {name} is reserved", "choose another, for example press-07")
    return name


class Topics:
    """The topics of one federation.

    Raises:
        ConfigError: when the federation's name breaks the rule for node names.
    """

    def __init__(self, federation: str) -> None:
        if not FEDERATION_NAME.fullmatch(federation):
            raise ConfigError(
                f"{federation!r} is not a federation name",
                "use 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit",
            )
        self.root = f"{ROOT}/{federation}"
        self.task_manifest = f"{self.root}/task/manifest"
        self.model_manifest = f"{self.root}/model/manifest"
        self.aggregator_status = f"{self.root}/aggregator/status"
        self.aggregator_key = f"{self.root}/aggregator/key"
        self.every_key = f"{self.root}/node/+/key"
        self.every_update = f"{self.root}/node/+/update"
        self.every_statistics = f"{self.root}/node/+/statistics"
        self.every_status = f"{self.root}/node/+/status"
        self.live_deltas = f"{self.root}/model/live/+"
        self.deltas = f"{self.root}/model/delta"

    def bundle(self, digest: str) -> str:
        """Below it lie the chunks, by index, of the bundle with this SHA-256 digest."""
        return f"{self.root}/task/bundle/{digest[:16]}"

    def snapshot(self, slot: int) -> str:
        """Below it lie the chunks of the snapshot in `slot`."""
        return f"{self.root}/model/snapshot/{slot}"

    def live(self, index: int) -> str:
        """Chunk `index` of a delta on its way to those who follow."""
        return f"{self.root}/model/live/{index}"

    def delta(self, slot: int) -> str:
        """Below it lie the chunks of the delta in `slot`."""
        return f"{self.root}/model/delta/{slot}"

    def update(self, node: str) -> str:
        """Where `node` sends its updates."""
        return f"{self.root}/node/{node}/update"

    def key(self, node: str) -> str:
        """Where `node` shows the key that it signs with."""
        return f"{self.root}/node/{node}/key"

    def statistics(self, node: str) -> str:
        """Where `node` sends its feature sums."""
        return f"{self.root}/node/{node}/statistics"

    def status(self, node: str) -> str:
        """Where `node` says how it is."""
        return f"{self.root}/node/{node}/status"

    def receipt(self, node: str) -> str:
        """Where `node` learns what became of its updates."""
        return f"{self.root}/node/{node}/receipt"

    def command(self, node: str) -> str:
        """Where `node` is asked to do something."""
        return f"{self.root}/node/{node}/command"

    def renewal(self, node: str) -> str:
        """Where `node` asks for a certificate that follows its present one."""
        return f"{self.root}/node/{node}/renewal"

    def certificate(self, node: str) -> str:
        """Where it gets that."""
        return f"{self.root}/node/{node}/certificate"

    def enrolment_request(self, invitation: str) -> str:
        """Where whoever holds the invitation with this id asks for a certificate; `+` stands for any."""
        return f"{self.root}/enrol/{invitation}/request"

    def enrolment_answer(self, invitation: str) -> str:
        """Where they get it."""
        return f"{self.root}/enrol/{invitation}/answer"

    def node_of(self, topic: str) -> str:
        """The node's name in a topic below `node/`.

        Raises:
            WireError: when the topic is not one of this federation's node topics.
        """
        prefix = f"{self.root}/node/"
        node, _, rest = topic.removeprefix(prefix).partition("/")
        if not topic.startswith(prefix) or not rest or not NODE_NAME.fullmatch(node):
            raise WireError(f"{topic[:100]!r} is not a node's topic")
        return node
