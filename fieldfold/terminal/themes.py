"""Light, dark, and the terminal's own sixteen colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from textual.app import App
from textual.theme import BUILTIN_THEMES, Theme

DARK: Final = Theme(
    name="dark",
    primary="#5fafd7",
    secondary="#87afaf",
    accent="#5fd7d7",
    foreground="#d8dee4",
    background="#10151a",
    surface="#161c22",
    panel="#2b3640",
    success="#87d787",
    warning="#ffd75f",
    error="#ff8787",
    dark=True,
)
LIGHT: Final = Theme(
    name="light",
    primary="#005f87",
    secondary="#3a6060",
    accent="#006d77",
    foreground="#1c2126",
    background="#fbfbf8",
    surface="#f2f2ee",
    panel="#c9ced2",
    success="#1d6b2f",
    warning="#7a5200",
    error="#a31515",
    dark=False,
)
NAMES: Final = {"dark": "dark", "light": "light", "16": "ansi-dark"}
"""What a person says -> the theme's name."""

CSS: Final = """
CommandPalette SearchIcon { display: none; }
CommandPalette #--input { border: solid $primary; }
CommandPalette #--input.--list-visible { border-bottom: none; }
.-ascii Pane.titled, .-ascii Listing { border-top: ascii $panel; }
.-ascii Items { scrollbar-size-vertical: 0; }
.-ascii CommandPalette #--input { border: ascii $primary; }
.-ascii CommandPalette CommandList { border: none; scrollbar-size-vertical: 0; }
.-ascii Reading > VerticalScroll, .-ascii Question > VerticalScroll { border: ascii $primary; }
"""
"""The palette without a sign that takes two columns; and an app with the class -ascii."""


def register(app: App[Any]) -> None:
    """Leaves exactly the themes that were drawn for these screens, and that of the terminal's own colours."""
    for name in BUILTIN_THEMES:
        if name not in NAMES.values():
            app.unregister_theme(name)
    for theme in (DARK, LIGHT):
        app.register_theme(theme)


def suited(environment: Mapping[str, str]) -> str:
    """The terminal's own colours where it does not say that it has more."""
    rich = environment.get("COLORTERM", "") or any(
        sign in environment.get("TERM", "") for sign in ("256", "direct", "kitty", "alacritty", "ghostty")
    )
    return "dark" if rich else "16"
