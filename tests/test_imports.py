"""The architecture, read off the import statements: leaves are imported late and once, and imports point one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dml_bench

PACKAGE = Path(dml_bench.__file__).parent
LEAVES = {"wandb": 1, "fiftyone": 1, "umap": 1, "matplotlib": 2, "ray": 1}
"""In how many modules each may be imported: matplotlib draws figures, and sets the text of pictures."""
HEIGHT = {
    "": -1,
    "ranges": -1,
    "registry": 0,
    "names": 1,
    "allocator": 0,
    "failures": -2,
    "drafts": -1,
    "files": 0,
    "seeding": 0,
    "lettering": 0,
    "markup": 0,
    "environment": 0,
    "distributed": 1,
    "config": 1,
    "experiments": 2,
    "tracking": 2,
    "catalogue": 3,
    "data": 3,
    "model": 3,
    "objectives": 3,
    "evaluation": 4,
    "results": 5,
    "originals": 5,
    "training": 5,
    "measured": 6,
    "runner": 6,
    "preview": 7,
    "lr_finder": 7,
    "channels": 7,
    "console": 7,
    "bench": 7,
    "doctor": 7,
    "expectations": 7,
    "comparison": 7,
    "effects": 8,
    "gallery": 7,
    "explain": 8,
    "projection": 7,
    "browse": 8,
    "export": 8,
    "suite": 8,
    "report": 9,
    "showcase": 10,
    "cli": 11,
    "__main__": 12,
}
"""A module may import those lower than it, and those of its own folder."""


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
                yield from walk(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(ast.parse(source), False)


def modules() -> dict[str, list[tuple[str, bool]]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): list(imports(path.read_text(encoding="utf-8"))) for path in paths}


def room(name: str) -> str:
    """The top-level module or folder that a dotted name of this package belongs to; '' for the package itself."""
    first = [*name.split("."), ""][1]
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file() else ""


def room_of_file(path: str) -> str:
    first = path.partition("/")[0].removesuffix(".py")
    return "" if first == "__init__" else first


def own_imports() -> Iterator[tuple[str, str]]:
    """(room, room it imports) over the whole package."""
    for path, names in modules().items():
        yield from ((room_of_file(path), room(name)) for name, _ in names if name.split(".")[0] == "dml_bench")


def test_the_reader_of_imports_sees_early_late_and_typing_imports():
    source = "import a.b\nif x:\n    from c import d\ndef f():\n    import e\n"
    assert list(imports(source)) == [("a.b", False), ("c.d", False), ("e", True)]


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_is_imported_in_few_modules_and_inside_functions(leaf):
    found = {path: [late for name, late in names if name.split(".")[0] == leaf] for path, names in modules().items()}
    importing = {path: late for path, late in found.items() if late}
    assert len(importing) <= LEAVES[leaf], sorted(importing)
    assert all(all(late) for late in importing.values()), sorted(importing)


def test_every_module_has_its_height():
    assert {room_of_file(path) for path in modules()} - HEIGHT.keys() == set(), "give the new module its place in HEIGHT"


def test_imports_point_one_way():
    upwards = {
        (importer, imported) for importer, imported in own_imports() if importer != imported and HEIGHT[imported] >= HEIGHT[importer]
    }
    assert upwards == set()


@pytest.mark.parametrize("lower", ["data", "model", "objectives", "evaluation"])
def test_what_is_measured_and_trained_on_knows_nothing_of_how_it_is_trained_or_run(lower):
    imported = {target for importer, target in own_imports() if importer == lower}
    assert imported
    assert imported.isdisjoint({"training", "runner", "results", "console", "cli"} | ({"evaluation"} - {lower}))


def test_no_module_has_a_name_that_says_nothing():
    assert {Path(path).stem for path in modules()}.isdisjoint({"utils", "common", "helpers", "misc"})


def test_the_command_line_is_imported_without_anything_heavy():
    listing = "import sys, dml_bench.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert "typer" in found
    assert set(found).isdisjoint({"torch", "numpy", "wandb", "fiftyone", "umap", "matplotlib", "ray", "faiss", "rich", "timm"})


@pytest.mark.parametrize("path", [path for path, names in modules().items() if names])
def test_a_name_in_all_exists(path):
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    public = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    bound = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    assert set(public[0] if public else []) <= bound
