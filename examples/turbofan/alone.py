"""The turbofan task for a gateway that is alone: the same model, held back harder, since it sees so few engines.

Decay and dropout were chosen on engines that no gateway owns; the federation's own settings cost it a cycle or two.
"""

from dataclasses import replace

from task import TASK as TOGETHER  # type: ignore[import-not-found]
from task import WearModel

from fieldfold.task.authoring import adamw

TASK = replace(
    TOGETHER,
    name="turbofan-alone",
    model=lambda: WearModel(dropout=0.1, hidden_dropout=0.2),
    optimizer=adamw(weight_decay=25.0, decay_vectors=False),
)
