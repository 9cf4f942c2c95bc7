"""What people may ask of the model that is served here: pin it, go back to the one before, write it to a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from fieldfold.errors import StoreError
from fieldfold.task.export import write_model
from node_app.learner import Learner
from node_app.serving import Serving

log = logging.getLogger(__name__)
EXPORTS = "exports"
"""The folder in state_dir for files whose place nobody named."""


class Choices:
    """The table of commands; called from the control server's threads, with who asks.

    Args:
        state_dir: where the node's own files lie.
    """

    def __init__(self, learner: Learner, state_dir: Path) -> None:
        self._learner, self._folder = learner, state_dir / EXPORTS

    def table(self) -> Mapping[str, Callable[..., str]]:
        """Name -> command."""
        return {"pin": self.pin, "unpin": self.unpin, "roll_back": self.roll_back, "export": self.export}

    def pin(self, asks: str) -> str:
        """Serves the present model whatever comes."""
        return self._choose(asks, Serving.pin)

    def unpin(self, asks: str) -> str:
        """Serves the better one again."""
        return self._choose(asks, Serving.unpin)

    def roll_back(self, asks: str) -> str:
        """Serves what was served before, and pins it."""
        return self._choose(asks, Serving.roll_back)

    def _choose(self, asks: str, choose: Callable[[Serving], str]) -> str:
        said = self._learner.serve(choose)
        log.info("%s asks: %s", asks, said)
        return said

    def export(self, asks: str, path: str = "") -> str:
        """Writes the served model to a new file, X.onnx or X.safetensors; without a path into state_dir/exports.

        Raises:
            FieldfoldError: when there is none, or it cannot be written there.
        """
        bundle, run, served = self._learner.served()
        target = Path(path)
        if not path:
            ending = "safetensors" if bundle.manifest.local.tensors else "onnx"
            whose = "-personal" if served.personal else ""
            target = self._folder / f"{bundle.manifest.name}-v{served.version}{whose}.{ending}"
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{target.parent}: cannot be made: {error.strerror}", "name another place") from None
        elif not target.is_absolute():
            raise StoreError(f"{path[:200]}: where is that?", "give the whole path, on the gateway")
        write_model(bundle, served.parameters, target, run=run, version=served.version)
        log.info("%s asks: %s written to %s", asks, served.name, target)
        return f"{served.name} is in {target}"
