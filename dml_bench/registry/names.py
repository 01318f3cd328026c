"""Names as people compare them: an é is an é, whether it is stored as one character (NFC) or as
an e with an accent (NFD)."""

import unicodedata
from collections.abc import Iterable, Mapping

from dml_bench.registry.registries import UnknownName, near_miss

__all__ = ["composed", "label_named", "one_spelling", "spelling"]


def composed(name: str) -> str:
    """The form in which names are compared; what is shown is the name as it was given."""
    return unicodedata.normalize("NFC", name)


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """For each of `names` the one spelling that stands for all that look like it: the composed one
    where it is there."""
    shown: dict[str, str] = {}
    sorted_names = sorted(set(names), key=lambda name: (name != composed(name), name))
    for name in sorted_names:
        shown.setdefault(composed(name), name)
    return {name: shown[composed(name)] for name in sorted_names}


def spelling(name: str, known: Iterable[str]) -> str:
    """`name` as `known` spells it; as it is where `known` has nothing that looks like it."""
    names = list(known)
    if name in names:
        return name
    return next((other for other in names if composed(other) == composed(name)), name)


def label_named(wanted: str, class_names: Mapping[int, str]) -> int:
    """The class id of a name, which may be given without the number before its dot. Raises
    UnknownName, also where several classes have that name behind a number."""
    ids = {composed(name): label for label, name in class_names.items()}
    numbered = []
    for name in ids:
        number, _, short = name.partition(".")
        if number.isdigit() and short == composed(wanted):
            numbered.append(name)
    label = ids.get(composed(wanted))
    if label is None and len(numbered) > 1:
        raise UnknownName(f"class {wanted!r} may be {' or '.join(numbered)}: write its number, too")
    if label is None and numbered:
        label = ids[numbered[0]]
    if label is None:
        raise UnknownName(
            f"the run has no class {wanted!r}{near_miss(wanted, list(class_names.values()))}; it"
            f" has {len(ids)} classes"
        )
    return label
