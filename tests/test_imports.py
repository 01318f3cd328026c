"""The architecture, read off the import statements: leaves are imported late and once, and imports
point one way."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dml_bench

PACKAGE = Path(dml_bench.__file__).parent
LEAVES = {"wandb": 1, "fiftyone": 1, "umap": 1, "matplotlib": 2, "ray": 1}
"""In how many modules each may be imported: matplotlib draws figures, and sets the text of
pictures."""
STILL_BACKWARDS: set[tuple[str, str]] = set()
"""Imports of one room by another that close a circle of rooms. May only shrink; the move is done
when it is empty."""
STILL_CIRCLES: set[str] = set()
"""Rooms whose modules import one another in a circle. May only shrink."""


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """The dotted names that a module imports, and whether it does so inside a function."""

    def walk(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                yield from ((f"{child.module}.{alias.name}", late) for alias in child.names)
            else:
                yield from walk(
                    child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                )

    return walk(ast.parse(source), False)


@cache
def modules() -> dict[str, list[tuple[str, bool]]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {
        path.relative_to(PACKAGE).as_posix(): list(imports(path.read_text(encoding="utf-8")))
        for path in paths
    }


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def own_imports() -> Iterator[tuple[str, str]]:
    """(module, module it imports) over the whole package, late imports and those for typing
    included."""
    known = {module_of(path) for path in modules()}
    for path, names in modules().items():
        for name, _ in names:
            if name.split(".")[0] != "dml_bench":
                continue
            target = name.removeprefix("dml_bench").removeprefix(".")
            while target and target not in known:
                target = target.rpartition(".")[0]
            target = target or "__init__"
            if target != module_of(path):
                yield module_of(path), target


def circles(edges: set[tuple[str, str]]) -> list[set[str]]:
    """The groups of nodes that reach one another."""
    graph: dict[str, set[str]] = {}
    for start, end in edges:
        graph.setdefault(start, set()).add(end)

    def reached(node: str) -> set[str]:
        seen: set[str] = set()
        waiting = [node]
        while waiting:
            for following in graph.get(waiting.pop(), set()) - seen:
                seen.add(following)
                waiting.append(following)
        return seen

    reach = {node: reached(node) for node in graph}

    def circle(node: str) -> set[str]:
        return {other for other in reach[node] if node in reach.get(other, set())}

    groups = [circle(node) for node in graph]
    return [group for place, group in enumerate(groups) if group and group not in groups[:place]]


def first(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def test_the_reader_of_imports_sees_early_late_and_typing_imports():
    source = "import a.b\nif x:\n    from c import d\ndef f():\n    import e\n"
    assert list(imports(source)) == [("a.b", False), ("c.d", False), ("e", True)]


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_is_imported_in_few_modules_and_inside_functions(leaf):
    importing = {}
    for path, names in modules().items():
        late = [is_late for name, is_late in names if first(name) == leaf]
        if late:
            importing[path] = late
    assert len(importing) <= LEAVES[leaf], sorted(importing)
    assert all(all(late) for late in importing.values()), sorted(importing)


def test_a_circle_is_seen():
    assert circles({("a", "b"), ("b", "c")}) == []
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}) == [{"a", "b", "c"}]


def test_imports_between_rooms_point_one_way():
    edges = {(first(importer), first(imported)) for importer, imported in own_imports()}
    edges = {(importer, imported) for importer, imported in edges if importer != imported}
    assert edges >= STILL_BACKWARDS, "take what is mended out of STILL_BACKWARDS"
    assert circles(edges - STILL_BACKWARDS) == []


def test_imports_inside_a_room_point_one_way():
    edges = {
        (importer, imported)
        for importer, imported in own_imports()
        if first(importer) == first(imported)
    }
    assert {first(sorted(circle)[0]) for circle in circles(edges)} == STILL_CIRCLES


@pytest.mark.parametrize("lower", ["data", "models", "losses", "evaluation"])
def test_what_is_measured_and_trained_on_knows_nothing_of_how_it_is_trained_or_run(lower):
    rooms = {first(target) for importer, target in own_imports() if first(importer) == lower} - {
        lower
    }
    assert rooms
    assert rooms <= {"config", "data", "models", "losses", "registry", "system"}


def test_rooms_are_few():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders
    assert len(folders) <= 23
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "version"}


def test_no_module_has_a_name_that_says_nothing():
    assert {Path(path).stem for path in modules()}.isdisjoint(
        {"utils", "common", "helpers", "misc"}
    )


def test_the_command_line_is_imported_without_anything_heavy():
    listing = (
        "import sys, dml_bench.cli.app; print(*sorted({name.partition('.')[0] for name in"
        " sys.modules}))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "typer" in imported
    assert set(imported).isdisjoint(
        {
            "torch",
            "numpy",
            "wandb",
            "fiftyone",
            "umap",
            "matplotlib",
            "ray",
            "faiss",
            "rich",
            "timm",
        }
    )


def test_no_test_imports_fiftyone_but_those_that_connect_it():
    """Whoever imports it first decides for all tests of the process on its database and plug-ins;
    `find_spec` says whether it is there."""
    statement = re.compile(r"""^ *(import|from) fiftyone|importorskip\(["']fiftyone""", re.M)
    importing_it = {
        path.name
        for path in Path(__file__).parent.rglob("*.py")
        if statement.search(path.read_text(encoding="utf-8"))
    }
    assert importing_it == {"test_fiftyone.py"}


def importing() -> list[str]:
    """The modules that import something; parsing them all would hold up every collection."""
    statement = re.compile(r"^\s*(from|import) ", re.M)
    paths = sorted(PACKAGE.rglob("*.py"))
    return [
        path.relative_to(PACKAGE).as_posix()
        for path in paths
        if statement.search(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("path", importing())
def test_a_name_in_all_exists(path):
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    public = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = [getattr(target, "id", "") for target in node.targets]
            if targets == ["__all__"]:
                public.append(ast.literal_eval(node.value))
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    bound = {node.name for node in tree.body if isinstance(node, definitions)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {
                name.id
                for target in targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    assert set(public[0] if public else []) <= bound
