"""A released version as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from aggregator.ledger.ledger import Ledger
from aggregator.past import released
from fieldfold.task.bundle import Bundle
from fieldfold.task.export import check_target, write_model


def export(ledger: Ledger, bundle: Bundle, version: int, target: Path) -> None:
    """Writes a version to `target`, which must not be there yet.

    Raises:
        ConfigError: when the name's end says no known form.
        StoreError: when the version cannot be made again, or the file not be written.
        BundleError: when the task has no model that this form could hold.
    """
    check_target(target)
    values = released(ledger, bundle, version)
    write_model(bundle, values, target, run=ledger.run(bundle.digest) or "", version=version)
