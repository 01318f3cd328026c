"""The digest of the code that decides answers: words don't count, code does."""

import os
import subprocess

import pytest

from dml_bench.system import code_digest as digests
from dml_bench.system.code_digest import code_digest, code_of, deciding_modules
from dml_bench.system.provenance import commit

MODULE = '''"""What it is."""

RATE = 0.1
"""What it is for."""


def step(weight):
    """What it does,

    in some lines."""
    # why
    return weight - RATE  # of this
'''


def test_docstrings_comments_and_empty_lines_are_no_code():
    assert code_of(MODULE) == ("RATE = 0.1\ndef step(weight):\n    return weight - RATE  # of this")


def test_a_text_that_is_used_is_code():
    assert code_of('NAME = """a\nb"""\n') == 'NAME = """a\nb"""'


@pytest.mark.parametrize("name", digests.LEFT_OUT)
def test_what_is_left_out_is_there_and_would_count_otherwise(name):
    path = digests.PACKAGE / name
    assert path.is_file()
    assert any(path.match(pattern) for pattern in digests.DECIDE)


@pytest.mark.parametrize("pattern", digests.DECIDE)
def test_each_pattern_names_modules(pattern):
    assert set(digests.PACKAGE.glob(pattern)) & set(deciding_modules(digests.PACKAGE))


def test_the_digest_is_of_the_deciding_modules_and_their_names(tmp_path, monkeypatch):
    (tmp_path / "training").mkdir()
    (tmp_path / "report").mkdir()
    monkeypatch.setattr(digests, "PACKAGE", tmp_path)

    def digest_with(name, source):
        path = tmp_path / name
        path.write_text(source)
        code_digest.cache_clear()
        made = code_digest()
        path.unlink()
        return made

    loop = digest_with("training/loop.py", "epochs = 3\n")
    assert digest_with("training/loop.py", '"""Trains."""\nepochs = 3\n') == loop
    assert digest_with("training/loop.py", "epochs = 4\n") != loop
    assert digest_with("training/fit.py", "epochs = 3\n") != loop
    nothing = digest_with("report/html.py", "width = 3\n")
    assert digest_with("report/html.py", "width = 4\n") == nothing
    code_digest.cache_clear()


def test_only_changes_of_code_are_said_beside_the_commit(tmp_path):
    def git(*command):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *command], check=True)

    assert commit(tmp_path) is None
    for name in ("dml_bench", "docs", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("one")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    os.utime(tmp_path / "dml_bench/file", (1, 1))  # which `git status` would write into its index
    index = (tmp_path / ".git/index").read_bytes()
    head = commit(tmp_path)
    assert (tmp_path / ".git/index").read_bytes() == index
    (tmp_path / "docs/file").write_text("two")
    (tmp_path / "results/new").write_text("two")
    assert commit(tmp_path) == head
    (tmp_path / "dml_bench/file").write_text("two")
    assert commit(tmp_path) == f"{head}+changes"
