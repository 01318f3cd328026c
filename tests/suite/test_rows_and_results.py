"""Which rows a search holds for where components of one's own were changed, and in which order a
suite says how its runs ended."""

from pathlib import Path

import pytest

import dml_bench as db
from dml_bench.config import as_table, load
from dml_bench.suite.executor import JobResult
from dml_bench.suite.plan import in_order
from dml_bench.suite.run import SuiteSession
from dml_bench.suite.tuned import other_settings
from dml_bench.training.tuning import Search

NAME = "EPSHN_cosine_resnet18_sgd_aug"
LOSS = """
import dml_bench as db


@db.register_loss(summary="a test")
def Mine(*, scale: float = 1.0):
    raise AssertionError("{message}")
"""


@pytest.mark.usefixtures("plugins_removed")
def test_a_search_does_not_hold_for_a_loss_whose_code_was_changed(tmp_path):
    file = tmp_path / "mine.py"
    settings = [f"plugins.imports=['{file}']", "loss=Mine", "miner=none"]
    file.write_text(LOSS.format(message="nothing is built"))
    searched = db.resolve(NAME, settings)

    def differences() -> list[str]:
        search = Search(
            experiment=load(as_table(searched)),
            space="networks",
            shared=False,
            multiples=(),
            split="",
            validation_classes=(),
            trials=(),
            path=Path("42.json"),
        )
        return other_settings(search, db.resolve(NAME, settings))

    assert differences() == []
    file.write_text(LOSS.format(message="another text"))
    assert differences() == ["plugins.loss Mine"]


def test_results_are_in_the_order_of_the_plan_and_not_in_that_of_the_clock(tmp_path):
    names = [NAME, "crossentropy_resnet18_sgd_aug"]
    suite = db.plan_suite(names, seeds=[42, 43], demo=True, out=tmp_path)
    session = SuiteSession(suite, in_order(list(suite.rows)), {})
    session.results += [JobResult(job=job, status="finished") for job in session.jobs[::-1]]
    assert [result.job.key for result in session.results_in_order()] == [
        (names[0], 42),
        (names[1], 42),
        (names[0], 43),
        (names[1], 43),
    ]
