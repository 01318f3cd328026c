"""The colours of figures and maps; nothing heavy is imported for them."""

import colorsys

__all__ = ["BLUE", "GOLD", "GREEN", "ORANGE", "PINK", "SKY", "distinct"]

BLUE, ORANGE, GREEN = "#2f7fc1", "#d9662b", "#1f9e77"
PINK, SKY, GOLD = "#c06a9f", "#5aa9dd", "#b8860b"
"""Told apart by people who see no red or green, and readable on white and on near black."""
SHADES = (0.47, 0.36, 0.60)


def distinct(count: int) -> list[str]:
    """Colours that lie far apart however many are taken: each hue a golden section of the circle
    from the last, in three shades."""
    colours = []
    for number in range(count):
        hue = (0.58 + 0.618034 * number) % 1
        parts = colorsys.hls_to_rgb(hue, SHADES[number % 3], 0.62)
        colours.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return colours
