"""Who is connected, as Mosquitto's log tells it."""

from __future__ import annotations

import re

# The client's id may hold anything printable; the user name, which is a certificate's common name, holds no quote.
# So the last match of the line's end is the broker's own.
_CONNECTED = re.compile(r"New client connected from \S+ as (.*) \(p\d+, c\d+, k\d+, u'([^']*)'\)\.$")
_GONE = re.compile(
    r"(?:Client (.*) (?:closed its connection|disconnected.*|has exceeded timeout.*)"
    r"|Socket error on client (.*), disconnecting)\.$"
)
MOST = 20_000
"""Sessions remembered, the newest: not every end is in the log. Who is forgotten is denied everything anyhow."""


class Sessions:
    """Client id -> user name of those who are connected, kept by reading the log line by line."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {}

    def read(self, line: str) -> None:
        """Takes one line of the log into account."""
        if found := _CONNECTED.search(line):
            self._users.pop(found[1], None)
            self._users[found[1]] = found[2]
            if len(self._users) > MOST:
                del self._users[next(iter(self._users))]
        elif found := _GONE.search(line):
            self._users.pop(found[1] or found[2], None)

    def of(self, user: str) -> list[str]:
        """The client ids under which `user` is connected, or was a moment ago."""
        return [client_id for client_id, name in list(self._users.items()) if name == user]

    def forget(self, client_id: str) -> None:
        """This session was ended."""
        self._users.pop(client_id, None)
