"""Coarse classes: those of the data set, or else families that the names of classes tell."""

import re

__all__ = ["coarse_classes_of", "families"]

LARGEST_SHARE = 0.67
"""Of families among classes: more of them would group too few."""


def coarse_classes_of(class_names: dict[int, str], known: dict[int, str]) -> dict[int, str]:
    """By class id, the coarse class: the known one, else the family. A class that was enrolled has
    no known one, and so none."""
    return known or families(class_names)


def families(class_names: dict[int, str]) -> dict[int, str]:
    """By class id, the last word of its name, which is often the family (`Albatross` of
    `001.Black_footed_Albatross`). Empty where these words group too few classes, or are
    numbers."""
    last_words = {}
    for label, name in class_names.items():
        parts = re.split(r"[\s_.]+", name.strip())
        last_words[label] = parts[-1].capitalize()
    groups = set(last_words.values())
    if not 1 < len(groups) <= LARGEST_SHARE * len(class_names):
        return {}
    if any(re.search(r"\d", group) for group in groups):
        return {}
    return last_words
