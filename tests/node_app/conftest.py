from __future__ import annotations

import pytest

from fieldfold.task.bundle import Bundle
from tests.node_app.turbofan import turbofan


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The turbofan example, compiled."""
    return turbofan()
