"""Verbs are thin, the cache is shown and cleared, and a shell completes names."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import dml_bench

import dml_bench as db
from dml_bench import cli
from dml_bench.config.experiments import names

MOST = 15
"""Lines of a verb or its helper, beside docstrings and lines that only hand an option on."""
HANDED_ON = re.compile(r"(\w+=[\w.]+|\*\*\w+|\"\w+\": [\w.]+|\w+),")
COMMAND = "import sys; sys.argv[0] = 'dml-bench'; from dml_bench.cli.app import main; main()"
LISTED = (
    f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {COMMAND}"
)


def functions() -> dict[str, ast.FunctionDef]:
    """All functions of the modules that have verbs."""
    of_modules = {}
    for path in sorted(Path(cli.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        if any(is_verb(node) for node in nodes):
            of_modules |= {f"{path.stem}.{node.name}": node for node in nodes}
    return of_modules


def is_verb(function: ast.FunctionDef) -> bool:
    return any(".command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def verbs() -> dict[str, ast.FunctionDef]:
    return {name: function for name, function in functions().items() if is_verb(function)}


FAMILIES = sorted({name.partition(".")[0] for name in verbs()})


def own_lines(name: str) -> list[str]:
    function = functions()[name]
    has_docstring = ast.get_docstring(function) is not None
    path = Path(cli.__file__).with_name(f"{name.partition('.')[0]}.py")
    lines = path.read_text(encoding="utf-8").splitlines()
    body = lines[function.body[has_docstring].lineno - 1 : function.end_lineno]
    return [line for line in body if not HANDED_ON.fullmatch(line.strip())]


def test_every_verb_is_seen():
    typed = re.findall(r"^@\w*app\.command", "\n".join(sources()), re.MULTILINE)
    assert len(verbs()) == len(typed) >= 33


def sources() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in Path(cli.__file__).parent.glob("*.py")]


@pytest.mark.parametrize("verb", verbs())
def test_a_verb_says_what_it_does(verb):
    assert ast.get_docstring(verbs()[verb])


@pytest.mark.parametrize("function", functions())
def test_a_verb_is_thin_and_hides_nothing_in_a_helper(function):
    assert len(own_lines(function)) <= MOST


def helps(path: Path) -> Iterator[str]:
    """The help text of each verb and of each option in a module of the command line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_help = isinstance(node, ast.keyword) and node.arg == "help"
        if is_help and isinstance(node.value, ast.Constant):
            yield node.value.value
    for name, function in verbs().items():
        if name.partition(".")[0] == path.stem:
            yield (ast.get_docstring(function) or "").partition("Example:")[0].replace("\\b", "")


@pytest.mark.parametrize("family", ["options", *FAMILIES])
def test_every_sentence_of_a_help_text_is_short(family):
    texts = list(helps(Path(cli.__file__).with_name(f"{family}.py")))
    assert len(texts) > 5
    sentences = [sentence for text in texts for sentence in " ".join(text.split()).split(". ")]
    assert [sentence for sentence in sentences if len(sentence.split()) >= 25] == []


def test_the_list_of_verbs_cuts_no_sentence_at_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), ("data",), ("wandb",)):
        assert dml_bench(monkeypatch, *group, "--help") == 0
        assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.fixture
def cache(tmp_path) -> Path:
    """Two image caches, drawn birds, and what nobody may remove."""
    folder = tmp_path / "cache"
    for name in ("images/a", "images/b", "demo-40x24-72px-seed7-edition1", "runs/x/cub/seed-42"):
        (folder / name).mkdir(parents=True)
        (folder / name / "pixels.u8").write_bytes(bytes(1000))
    (folder / "runs/x/cub/seed-42/experiment.json").write_text("{}")
    return folder


def test_the_cache_is_shown_by_kind_path_and_size(cache, monkeypatch, capsys):
    assert dml_bench(monkeypatch, "cache", "--json", "--cache-dir", cache) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(entry["kind"], Path(entry["path"]).name, entry["num_bytes"]) for entry in entries] == [
        ("images", "a", 1000),
        ("images", "b", 1000),
        ("drawn", "demo-40x24-72px-seed7-edition1", 1000),
    ]


def test_one_kind_is_cleared_and_all_others_stay(cache, monkeypatch, capsys):
    assert dml_bench(monkeypatch, "cache", "images", "--clear", "--cache-dir", cache) == 0
    assert capsys.readouterr().out.endswith(f"removed: 2 entries, 0.0 MB in {cache}\n")
    assert [entry.kind for entry in db.cached(cache_dir=cache)] == ["drawn"]


def test_clearing_the_cache_never_removes_a_run_folder(cache):
    (cache / "images" / "mine").mkdir()
    (cache / "images" / "mine" / "experiment.json").write_text("{}")
    removed = db.clear_cache(cache_dir=cache)
    assert [entry.path.name for entry in removed] == ["a", "b", "demo-40x24-72px-seed7-edition1"]
    assert (cache / "images" / "mine" / "experiment.json").exists()
    assert (cache / "runs/x/cub/seed-42/experiment.json").exists()


def completed(tmp_path: Path, *typed: str) -> tuple[list[str], set[str]]:
    """What bash would offer in place of the last word, and the modules imported for it."""
    environment = os.environ | {
        "_DML_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["dml-bench", *typed]),
        "COMP_CWORD": str(len(typed)),
    }
    finished = subprocess.run(
        [sys.executable, "-c", LISTED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.stdout.split(), set(finished.stderr.split())


def test_a_shell_completes_the_names_of_experiments(tmp_path):
    offered, modules = completed(tmp_path, "run", "EPSHN_cosine")
    assert offered == [name for name in names() if name.startswith("EPSHN_cosine")]
    assert modules.isdisjoint({"torch", "timm"})


def test_a_shell_completes_the_keys_of_set(tmp_path):
    offered, modules = completed(tmp_path, "show", "EPSHN_cosine_resnet18_sgd_aug", "--set", "opt")
    assert {"optimizer=", "optimizer.lr="} <= set(offered)
    assert all(key.startswith("optimizer") for key in offered)
    assert modules.isdisjoint({"torch", "timm"})


def test_a_shell_completes_the_components_of_a_key(tmp_path):
    offered, _ = completed(tmp_path, "run", "x", "--set", "loss=Arc")
    assert offered == ["loss=ArcFace"]


def test_every_key_that_is_offered_can_be_set():
    from dml_bench.cli.completion import KINDS, complete_override

    offered = [key.removesuffix("=") for key in complete_override("")]
    assert set(KINDS) <= set(offered)
    assert "train.epochs" in offered
