"""A session of tests: `make test` divides it among forked processes, and `make test-all` ends with
each test that was skipped and why, and can ask that there is none."""

import re
from pathlib import Path

import pytest
from forked import ForkedProgram

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {
    "griffe": "griffelib",
    "pytorch_grad_cam": "grad-cam",
    "skimage": "scikit-image",
}
"""Packages that are not called as their modules."""
SKIPS = """
import pytest

@pytest.mark.skip(reason="no such machine here")
def test_of_a_machine():
    pass

def test_of_nothing():
    pass

@pytest.mark.slow
def test_of_minutes():
    pass
"""
SHARES = """
import os
import time
import pytest

@pytest.fixture(scope="module")
def made():
    with open("made.txt", "a") as file:
        file.write(f"{__name__} {os.getpid()} {os.getppid()}\\n")
    yield os.getpid()
    with open("made.txt", "a") as file:
        file.write(f"{__name__} {os.getpid()} removed\\n")

@pytest.fixture(scope="session")
def kept():
    yield
    assert os.path.exists("no such file"), "seen at the very end"

@pytest.mark.parametrize("number", range(9))
def test_of_what_is_shared(made, number):
    assert made == os.getpid()
"""
WAITS = """

def test_until_another_process_has_begun(made):
    while len({line.split()[1] for line in open("made.txt")}) < 2:
        time.sleep(0.01)
"""
FAILS = """
import os
import signal

def test_that_prints_and_fails():
    print("printed by a test")
    assert [1, 2] == [1, 3]

def test_that_ends_its_process():
    os.kill(os.getpid(), signal.SIGKILL)

def test_after_it():
    pass
"""
DEAR = """
import time
import pytest
import processor_time

processor_time.LIMIT_SECONDS = 0.1
processor_time.USUAL_SECONDS = {usual}

def work():
    start = time.process_time()
    while time.process_time() < start + 0.2:
        pass

@pytest.fixture(scope="module")
def large():
    work()

@pytest.fixture(scope="module")
def shared():
    with processor_time.shared_work():
        work()

def test_that_is_dear():
    work()

@pytest.mark.slow
def test_that_says_so():
    work()

def test_of_what_others_made(shared):
    pass

def test_of_a_large_fixture(large):
    pass
"""


def session(folder: Path, *options: str, **files: str) -> tuple[int, str]:
    """Exit code and words of a session of these files of tests, under the conftest of all."""
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (folder / "conftest.py").write_text(conftest, encoding="utf-8")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes minutes\n")
    arguments = ["-q", "-p", "no:cacheprovider", *options]
    running = ForkedProgram(lambda: int(pytest.main(arguments)), folder=folder)
    printed, errors = running.communicate()
    return running.returncode, printed + errors


def test_what_a_test_may_be_skipped_for_is_pinned_or_comes_with_install_for_all_tests():
    """Else `make test-all FLAGS=--require-all` could not pass."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    modules = set(re.findall(r'importorskip\("(\w+)', "".join(texts)))
    assert len(modules) > 8
    names = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in modules}
    pinned = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("install-for-all-tests: ")[1]
    assert names - set(pinned) - set(recipe.partition("\n\n")[0].split()) == set()
    assert ".[encoders,lora]" in recipe


@pytest.mark.slow
@pytest.mark.parametrize("forks", [(), ("--forks",)])
@pytest.mark.parametrize(
    ("option", "passed", "code"), [("", 1, 0), ("--all", 2, 0), ("--require-all", 2, 1)]
)
def test_skipped_tests_are_listed_and_may_be_a_failure(tmp_path, option, passed, code, forks):
    ended, printed = session(tmp_path, *forks, *option.split(), test_it=SKIPS)
    assert ended == code, printed
    assert f"{passed} passed, 1 skipped" in printed
    assert ("no such machine here" in printed) is bool(option)


def test_the_tests_of_a_file_share_what_one_forked_process_made_and_removes(tmp_path):
    names = [f"test_{letter}" for letter in "abcdef"]
    ended, printed = session(tmp_path, "--forks", **dict.fromkeys(names, SHARES + WAITS))
    assert ended == 0, printed
    assert "60 passed" in printed
    lines = [line.split() for line in (tmp_path / "made.txt").read_text().splitlines()]
    made = {name: process for name, process, parent in lines if parent != "removed"}
    removed = {name: process for name, process, parent in lines if parent == "removed"}
    assert (len(lines), set(made), removed) == (12, set(names), made)
    assert len(set(made.values())) > 1


def test_a_test_that_ends_its_process_has_failed_and_the_others_are_run(tmp_path):
    ended, printed = session(tmp_path, "--forks", test_a=FAILS, test_b=SHARES)
    assert ended == 1, printed
    assert "2 failed, 10 passed" in printed
    assert "printed by a test" in printed
    assert "assert [1, 2] == [1, 3]" in printed
    assert "its process ended with exit code -9 while this test ran" in printed


def test_what_goes_wrong_when_all_tests_of_a_process_have_ended_is_an_error(tmp_path):
    file = SHARES.replace("(made, number)", "(made, number, kept)")
    ended, printed = session(tmp_path, "--forks", test_a=file, test_b=file)
    assert ended == 1, printed
    assert "18 passed" in printed and ("1 error" in printed or "2 errors" in printed)
    assert printed.count("seen at the very end") >= 1


def test_a_session_ends_at_the_first_failure_where_that_is_asked_for(tmp_path):
    ended, printed = session(tmp_path, "--forks", "-x", test_a=FAILS)
    assert ended == 1, printed
    assert "1 failed in" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "usual", "ended_with"),
    [
        (("--forks", "--all"), "1e9", "1 failed, 2 passed, 1 error"),
        (("--forks", "--all"), "1e-9", "4 passed"),  # a very slow machine
        (("--all",), "1e9", "4 passed"),
    ],
)
def test_a_test_that_takes_long_fails_where_it_is_not_marked_as_slow(
    tmp_path, options, usual, ended_with
):
    test = DEAR.replace("{usual}", usual)
    _, printed = session(tmp_path, *options, test_dear=test)
    assert ended_with in printed
    assert "Dearest files: test_dear " in printed
    if "error" in ended_with:
        for name in ("test_dear.py::test_that_is_dear", "test_dear.py::large"):
            assert f"{name} must take at most 0 seconds of a processor, got 0." in printed
        assert "mark it with @pytest.mark.slow and let a cheaper test check its claim" in printed
