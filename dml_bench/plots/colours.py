"""The colours of figures, maps and pages; nothing heavy is imported for them.

Figures and maps have the same colours on a light and on a dark ground, with a contrast of 3 to
both. Text has a contrast of 4.5 (WCAG 2.2, levels AA of graphics and of text).
"""

import colorsys

__all__ = ["BLUE", "GOLD", "GREEN", "GREY", "ORANGE", "PAGE", "PINK", "SKY", "distinct", "style"]

BLUE, ORANGE, GREEN = "#2f7fc1", "#d9662b", "#1f9e77"
PINK, SKY, GOLD, GREY = "#c06a9f", "#3f97cf", "#b8860b", "#7a8794"
"""Distinguishable for people who see no red or green, and readable on white and on near black."""
PAGE = {
    "light": {
        "ground": "#ffffff",
        "ink": "#1d2126",
        "soft": "#5c6570",
        "line": "#d8dde3",
        "panel": "#f5f7f9",
        "accent": "#1f6fb2",
        "good": "#18794e",
        "bad": "#b3261e",
        "unsure": "#8a5a00",
    },
    "dark": {
        "ground": "#15181c",
        "ink": "#e4e8ec",
        "soft": "#a0a9b3",
        "line": "#343b43",
        "panel": "#1d2126",
        "accent": "#6db3ee",
        "good": "#5fcf9b",
        "bad": "#ff8a80",
        "unsure": "#e5b35a",
    },
}
"""Of all pages, by the viewer's light or dark mode."""
SHADES = (0.47, 0.36, 0.60)


def style() -> str:
    """The colours of a page as CSS variables; paper is light."""
    light, dark = variables("light"), variables("dark")
    return (
        f":root {{ {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    )


def variables(mode: str) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in PAGE[mode].items())


def distinct(count: int) -> list[str]:
    """Colours that lie far apart however many are taken: each hue a golden section of the circle
    from the last, in three shades."""
    colours = []
    for number in range(count):
        hue = (0.58 + 0.618034 * number) % 1
        parts = colorsys.hls_to_rgb(hue, SHADES[number % 3], 0.62)
        colours.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return colours
