"""How strongly the images of one species vary."""

from dataclasses import dataclass

__all__ = ["NUISANCE", "Nuisance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Nuisance:
    """How strongly images of one species vary; every field is a range or a probability, and 0
    switches it off."""

    tilt_degrees: float = 8.0
    """Most that the body leans from its family's posture."""
    nod_degrees: float = 10.0
    turned_head_fraction: float = 0.3
    looking_back_fraction: float = 0.05
    size_fraction: tuple[float, float] = (0.72, 0.96)
    """Longer side of the bird as a fraction of the image's."""
    plumage_spread: float = 0.05
    """Most that one individual's colours differ from its species', as a fraction of the full range.
    """
    light_spread: float = 0.08
    """Most that warm or cold light raises or lowers a channel."""
    dim_fraction: float = 0.12
    occlusion_fraction: float = 0.2
    blur_fraction: float = 0.2
    noise_levels: float = 6.0
    """Largest noise amplitude, in grey levels of 0..255."""


NUISANCE = Nuisance()
"""The strength that `draw` uses. Changing it changes every image, and with them what a model can
reach."""
