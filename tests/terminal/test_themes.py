"""Themes can be read: every colour that words have stands out from its ground, and without colours all is grey."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.color import Color
from textual.theme import Theme

from fieldfold.terminal import themes
from fieldfold.terminal.pane import STYLES, Pane
from fieldfold.terminal.words import Words, line
from tests.terminal.screens import drive

ENOUGH = 4.5
"""WCAG 2.1, level AA."""


@pytest.mark.parametrize("theme", [themes.DARK, themes.LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("role", ["foreground", "success", "warning", "error", "primary", "accent"])
def test_words_stand_out(theme: Theme, role: str) -> None:
    colour = Color.parse(getattr(theme, role))
    for ground in (theme.background, theme.surface):
        assert ground is not None
        assert contrast(colour, Color.parse(ground)) >= ENOUGH


def contrast(one: Color, other: Color) -> float:
    lights = sorted(_luminance(each) for each in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: Color) -> float:
    parts = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in colour.normalized]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def every_role(snapshot: object, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    return tuple(line((role or "plain", role)) for role in STYLES)


class Roles(App[None]):
    """One pane with a word of every role."""

    def compose(self) -> ComposeResult:
        themes.register(self)
        self.theme = "dark"
        yield Pane(every_role)


def colours_on_screen() -> set[str]:
    """Of all that is drawn."""
    found: set[str] = set()

    async def work() -> None:
        app = Roles()
        async with app.run_test(size=(20, 10)) as pilot:
            app.query_one(Pane).show(object())
            await pilot.pause()
            for strip in app.screen._compositor.render_strips():
                for segment in (
                    strip.apply_filter(app._filters[0], app.background_colors[1]) if app._filters else strip
                ):
                    if segment.text.strip() and segment.style is not None and segment.style.color is not None:
                        found.add(segment.style.color.get_truecolor().hex)

    drive(work())
    return found


def test_every_role_has_a_colour_of_its_own_where_there_are_colours() -> None:
    assert len(colours_on_screen()) >= 5


def test_without_colours_everything_is_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for colour in colours_on_screen():
        assert colour[1:3] == colour[3:5] == colour[5:7], f"{colour} is a colour"
