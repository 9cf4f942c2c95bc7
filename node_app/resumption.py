"""Goes on with a half-read bundle or snapshot after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec.structs import asdict

from fieldfold.errors import StoreError, WireError
from node_app.fetch import Announced, Fetch, Wanted
from node_app.pieces import Fetching, Pieces

log = logging.getLogger(__name__)


class Resumption:
    """Keeps what has come in the store. A store that refuses is said, and the fetch goes on without it."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def restore(self) -> dict[Wanted, Fetch]:
        """The fetch that was under way, if there is one."""
        kept = self._pieces.kept()
        if kept is None:
            return {}
        of, pieces = kept
        fetch = Fetch(of.prefix, Announced(of.digest, of.size_bytes, of.chunk_bytes))
        try:
            fetch.resume(pieces)
        except WireError as error:
            log.warning("what came of a %s before is of no use: %s", of.kind, error)
            return {}
        log.info("%.0f %% of a %s came before, only the rest is fetched", 100 * fetch.progress, of.kind)
        return {Wanted(of.kind, of.version, of.digest): fetch}

    def keep(self, fetches: Mapping[Wanted, Fetch]) -> None:
        """Writes down what has come of announced objects since the last call."""
        for wanted, fetch in fetches.items():
            announced = fetch.announced
            if announced is not None and (fresh := fetch.take_fresh()):
                of = Fetching(kind=wanted.kind, version=wanted.version, prefix=fetch.prefix, **asdict(announced))
                try:
                    self._pieces.keep(of, fresh)
                except StoreError as error:
                    log.warning("what has come of a %s would not outlive a restart: %s", wanted.kind, error)

    def forget(self) -> None:
        """The object is complete, or of no use."""
        try:
            self._pieces.forget()
        except StoreError as error:
            log.warning("pieces that are of no use any more stay on the disk: %s", error)
