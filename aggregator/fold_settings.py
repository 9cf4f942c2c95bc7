"""What decides, besides the log, which versions come out; the ledger notes from where on which settings count."""

from __future__ import annotations

import msgspec

from aggregator.fold.methods import AnyMethod
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Stretch
from fieldfold.errors import StoreError


class FoldSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides, besides the log, which versions come out.

    Attributes:
        fold: the method with its settings.
        profile: codec profile of the delta from one version to the next.
    """

    fold: AnyMethod
    profile: str

    @classmethod
    def read(cls, stretch: Stretch, ledger: Ledger) -> FoldSettings:
        """Those of a stretch.

        Raises:
            StoreError: when they are not settings of this program.
        """
        try:
            return msgspec.json.decode(stretch.settings, type=cls)
        except msgspec.DecodeError as error:
            raise StoreError(
                f"{ledger.path}: the settings from version {stretch.version} on are not of this program: {error}",
                "run the release of fieldfold that wrote them, or restore a backup",
            ) from None


def in_force(ledger: Ledger, task: str, contribution: int) -> Stretch:
    """The stretch that the contributions behind this place belong to."""
    past = [stretch for stretch in ledger.stretches(task) if stretch.contribution <= contribution]
    if not past:
        raise StoreError(
            f"{ledger.path}: it does not say how contribution {contribution} was folded", "restore a backup"
        )
    return past[-1]
