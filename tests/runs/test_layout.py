"""The names of files and folders inside a run folder are written once, in `runs.layout`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dml_bench
from dml_bench.runs import layout

PACKAGE = Path(dml_bench.__file__).parent
ALLOWED = {"runs/layout.py", "training/folds.py"}
"""`training.folds` names the folders of the models that it trains; it may not import `runs`."""
FILES = [
    value
    for name, value in vars(layout).items()
    if name.isupper() and isinstance(value, str) and "." in value
]
SPELLED = re.compile(
    rf"(?<![\w.-])(?:{'|'.join(map(re.escape, FILES))})(?!\w)|(?:^|/)(?:seed|fold|judge)-(?:$|\W)"
)


def texts(source: str) -> Iterator[str]:
    """The string constants of a module, without docstrings."""
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    docstrings = {id(node.value) for node in statements if isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def spellings(source: str) -> list[str]:
    return [text for text in texts(source) if SPELLED.search(text)]


def test_a_new_literal_is_noticed():
    assert len(FILES) == 21
    for literal in ("split.csv", "all/embeddings.safetensors", "*/seed-*/x", "fold-", "judge-*/x"):
        assert spellings(f"path = folder / {literal!r}") == [literal]
    assert spellings('path = f"{phase}/{model}/weights.safetensors"')
    assert spellings('path = folder / f"seed-{seed}"')


def test_a_docstring_and_another_file_may_be_called_as_they_like():
    assert spellings('def f():\n    """Reads split.csv."""') == []
    for literal in (".state.pt", "resplit.csv", "runs/EXPERIMENT/DATASET/seed-42", "-fold-1"):
        assert spellings(f"name = {literal!r}") == []


def test_names_inside_a_run_folder_are_written_in_two_modules():
    modules = {
        path.relative_to(PACKAGE).as_posix(): spellings(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    spelling = {path: names for path, names in modules.items() if names}
    assert spelling.keys() == ALLOWED, spelling
