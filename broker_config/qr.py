"""An invitation's code as a QR code of half blocks, for a terminal that has room for it."""

from __future__ import annotations

import io
import os

from fieldfold.errors import ConfigError

BORDER = 2


def drawn(code: str, terminal: os.terminal_size) -> str:
    """The picture: light on dark, as terminals are; a line holds two rows of modules.

    Raises:
        ConfigError: when the terminal is too small, or segno is not installed.
    """
    try:
        import segno  # noqa: PLC0415 - only this picture needs it
    except ImportError:
        raise ConfigError("no QR code: it needs the package segno", "pip install 'fieldfold[aggregator]'") from None
    made = segno.make(code, error="l", micro=False, boost_error=False)
    columns, rows = made.symbol_size(border=BORDER)
    lines = rows // 2 + 1
    if terminal.columns < columns or terminal.lines < lines:
        raise ConfigError(
            f"no QR code: it needs {columns} columns and {lines} lines, and this terminal has"
            f" {terminal.columns} and {terminal.lines}",
            "make the letters smaller",
        )
    out = io.StringIO()
    made.terminal(out, border=BORDER, compact=True)
    return out.getvalue()
