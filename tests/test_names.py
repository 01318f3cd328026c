"""Words that give way to the field's own, long lines and nested comprehensions: what is left of
them stands in names_left.txt, room by room, and may only shrink.

`python tests/test_names.py` writes lower counts into that list, and never a higher one.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LEFT = Path(__file__).with_name("names_left.txt")
VARIABLES = ("each", "found", "given", "told", "whole")
"""They say that a value was obtained, not what it is."""
OLD_NAMES = (
    "Album Answered Answers Asked Bar Chapter Choice Closer Crew Ended Engine FinishedRun"
    " Judgement Lens LookUps Mapped Material Member Opened Resident Retrieval Subject Together"
    " Turned Unknowns Watch Watched agree asked asked_of_itself closer in_words judge lacks"
    " lens look_closer members_of one_voice only_first own_draws read_finished replicated"
    " showcase stage_of subjects twins views_of watch watched withheld without_classes words"
    " wording"
)
"""Identifiers that mean nothing to somebody who knows PyTorch, scikit-learn, timm or Lightning."""
WANTED = {*VARIABLES, *OLD_NAMES.split()}
NESTED = "nested-comprehension"
LONG = "long-line"
NAMED_BY: dict[type[ast.AST], str] = {
    ast.Name: "id",
    ast.Attribute: "attr",
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.arg: "arg",
    ast.keyword: "arg",
}
"""The attribute in which a node of a kind has its name."""
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def room_of(path: Path) -> str:
    """`explain` of dml_bench/explain/hooks.py; `tests` of each test; `top` of dml_bench/api.py."""
    first, *rest = path.relative_to(REPOSITORY).parts
    if first != "dml_bench":
        return first
    return rest[0] if len(rest) > 1 else "top"


def python_files() -> list[Path]:
    """Every module, test and benchmark of the repository."""
    folders = [REPOSITORY / name for name in ("dml_bench", "tests", "benchmarks")]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def names_in(node: ast.AST) -> Iterable[str]:
    """Names that a node by itself defines, takes, passes or uses."""
    if isinstance(node, ast.alias):
        return (node.asname or node.name).split(".")
    attribute = NAMED_BY.get(type(node))
    return () if attribute is None else (getattr(node, attribute),)


def counts_of(source: str) -> Counter[str]:
    """How often a module has each thing that names_left.txt counts."""
    counts: Counter[str] = Counter()
    nodes: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    while nodes:
        node, is_inside = nodes.pop()
        for name in names_in(node):
            if name in WANTED:
                counts[name] += 1
        if isinstance(node, COMPREHENSIONS):
            counts[NESTED] += is_inside
            is_inside = True
        nodes += [(child, is_inside) for child in ast.iter_child_nodes(node)]
    counts[LONG] = sum(len(line) > 100 for line in source.splitlines())
    return +counts


@cache
def standing() -> Counter[tuple[str, str]]:
    """What stands in the repository, by room and word."""
    total: Counter[tuple[str, str]] = Counter()
    for path in python_files():
        for word, count in counts_of(path.read_text(encoding="utf-8")).items():
            total[room_of(path), word] += count
    return total


def listed() -> dict[tuple[str, str], int]:
    """What names_left.txt still allows, by room and word."""
    allowed = {}
    for line in LEFT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            room, word, count = line.split()
            assert (room, word) not in allowed, f"{LEFT.name} has two lines for {room} {word}"
            allowed[room, word] = int(count)
    return allowed


def write_lower(allowed: dict[tuple[str, str], int]) -> None:
    """Write what stands today where it is less than what is allowed."""
    today = standing()
    lines = ["# room word count: what is left, and may only shrink (tests/test_names.py)"]
    for room in sorted({room for room, _ in allowed}):
        lines.append(f"# {room}")
        for (where, word), count in sorted(allowed.items()):
            if where == room and today[room, word]:
                lines.append(f"{room} {word} {min(count, today[room, word])}")
    LEFT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_no_old_word_long_line_or_nested_comprehension_is_added():
    allowed = listed()
    added = [
        f"{room} {word}: {count}, allowed {allowed.get((room, word), 0)}"
        for (room, word), count in standing().items()
        if count > allowed.get((room, word), 0)
    ]
    assert not added, f"say it in the field's words or in plain statements: {sorted(added)}"


def test_what_is_gone_has_left_the_list():
    today = standing()
    gone = [f"{room} {word}" for room, word in listed() if not today[room, word]]
    assert not gone, f"run `python tests/test_names.py`, nothing is left of {gone}"


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("found = 1", {"found": 1}),
        ("def told(): pass", {"told": 1}),
        ("def f(each): pass", {"each": 1}),
        ("run(watch=1)", {"watch": 1}),
        ("import a.whole", {"whole": 1}),
        ("from a import b as lens", {"lens": 1}),
        ("a.given", {"given": 1}),
        ("profound = 'found' # found", {}),
        ("[[a for a in b] for b in c]", {NESTED: 1}),
        ("[a for b in c for a in b]", {}),
        ("{a: (b for b in {c for c in a}) for a in d}", {NESTED: 2}),
        (f"a = '{'x' * 95}'", {LONG: 1}),
        (f"a = '{'x' * 94}'", {}),
    ],
)
def test_what_counts(source: str, counts: dict[str, int]):
    assert counts_of(source) == counts


if __name__ == "__main__":
    if sys.argv[1:] == ["--anew"]:  # of a word that this file begins to count
        write_lower(dict(standing()))
    else:
        write_lower(listed())
