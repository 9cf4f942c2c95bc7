"""Acknowledgements leave in the order of receipt, each once, whatever order the caller finishes in."""

from __future__ import annotations


class AckBook:
    """The messages of one connection that are received and not yet acknowledged.

    MQTT 5 (4.6) wants PUBACKs in order of receipt, and some brokers hang up on any other order. A message is
    known by a token that is never used again; the packet identifier is the broker's and is used again and again.
    """

    def __init__(self) -> None:
        self._identifiers: dict[int, int] = {}
        self._done: set[int] = set()

    def receive(self, token: int, packet_identifier: int) -> None:
        """Notes a message in order of receipt."""
        self._identifiers[token] = packet_identifier

    def settle(self, token: int) -> list[int]:
        """The packet identifiers to acknowledge now, in order; none while an earlier message is open.

        A token that is unknown (of a former connection) or already settled changes nothing.
        """
        if token not in self._identifiers:
            return []
        self._done.add(token)
        due: list[int] = []
        while self._identifiers and (first := next(iter(self._identifiers))) in self._done:
            self._done.remove(first)
            due.append(self._identifiers.pop(first))
        return due

    @property
    def open_tokens(self) -> list[int]:
        """Tokens that the broker still waits for, in order of receipt."""
        return list(self._identifiers)
