"""`make test-all` ends with each test that was skipped and why, and can ask that there is none."""

from pathlib import Path

import pytest
from forked import ForkedProgram

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


@pytest.mark.parametrize(
    ("option", "passed", "code"), [("", 1, 0), ("--all", 2, 0), ("--require-all", 2, 1)]
)
def test_skipped_tests_are_listed_and_may_be_a_failure(tmp_path, option, passed, code):
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(SKIPS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes minutes\n")
    options = ["-q", "-p", "no:cacheprovider", *option.split()]
    running = ForkedProgram(lambda: int(pytest.main(options)), folder=tmp_path)
    printed, errors = running.communicate(timeout=60)
    assert running.returncode == code, printed + errors
    assert f"{passed} passed, 1 skipped" in printed
    assert ("no such machine here" in printed) is bool(option)
