"""A protocol is one object: nothing else asks for it by its name, and a third one needs no change
elsewhere."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import BASELINE, experiment, finish
from tiny import SETTINGS, dml_bench, refusal, tiny

import dml_bench as package
from dml_bench import registry
from dml_bench.analysis.compare import compare, read_sides
from dml_bench.config import Evaluate, Expectation, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, fingerprint, make_split, unseen_classes
from dml_bench.evaluation.metrics import by_class, macro, precision_at_1, r_precision
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols import class_holdout, protocol_named, protocol_of
from dml_bench.protocols.base import (
    PhaseOutput,
    Protocol,
    Result,
    predictions,
    register,
)
from dml_bench.protocols.metric import Column, Metric, by_name, columns_of, scores_of_phase
from dml_bench.runs.metrics import measure
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.files import read_csv
from dml_bench.system.tables import OutcomeTable, ResultTable, number

PACKAGE = Path(package.__file__).parent

# A name that is spelled


def texts_of(source: str) -> Iterator[str]:
    """The texts, docstrings included, and the dotted names of imports of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield ast.unparse(node)


def spells(source: str, name: str) -> bool:
    return any(re.search(rf"\b{name}\b", text) for text in texts_of(source))


def test_a_spelled_name_is_seen_in_texts_docstrings_and_imports_and_not_in_longer_names():
    assert spells('protocol = "class_disjoint"', "class_disjoint")
    assert spells('"""Of `class_disjoint`."""', "class_disjoint")
    assert spells("from protocols.class_disjoint import Result", "class_disjoint")
    assert not spells('key = "precision_drop_unseen_classes"', "precision_drop")


def test_few_modules_spell_the_name_of_a_protocol():
    modules = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        joined = re.sub(r'"\s*f?"', "", source)  # a cheap look first
        names = [name for name in registry.protocols.names() if name in joined]
        if any(spells(source, name) for name in names):
            modules.add(path.relative_to(PACKAGE).as_posix())
    assert modules == {
        "protocols/__init__.py",
        "protocols/class_holdout.py",
        "protocols/class_disjoint.py",
        "protocols/multi_label.py",
        "config/experiment.py",
    }


# Every protocol


@pytest.mark.parametrize("name", registry.protocols.names())
def test_a_protocol_is_complete(name):
    protocol = protocol_named(name)
    resolved = tiny(f"protocol={name}", f"data.split={protocol.splits[0]}", "miner=none")
    metrics = protocol.metrics(resolved)
    assert metrics
    assert "precision_at_1_macro" in metrics, "reports and comparisons of classes rest on it"
    assert all(metric.name == key for key, metric in metrics.items())
    columns = protocol.columns([resolved])
    assert {column.key for column in columns if column.interval} <= set(metrics)
    assert protocol.explanation
    assert protocol_of(resolved).name == name


def test_an_unknown_protocol_is_refused_with_those_that_there_are(monkeypatch, capsys):
    line = refusal(
        monkeypatch, capsys, "show", "EPSHN_cosine_resnet18_sgd", "--set", "protocol=class_disjunct"
    )
    assert "class_disjunct" in line
    assert "did you mean class_disjoint?" in line


# A third protocol


class UnseenResult(Result):
    """P@1 on the queries, which are all of unseen classes."""

    def __init__(self, dataset: Dataset, split: Split, neighbours: Neighbours):
        self.dataset, self.split, self.neighbours = dataset, split, neighbours

    def highlights(self) -> dict[str, float]:
        right = precision_at_1(self.neighbours)
        return {"precision_at_1_macro": macro(right, self.neighbours.query_labels)}

    def summary(self) -> dict[str, Any]:
        return {"unseen": self.highlights()}

    def tables(self) -> dict[str, ResultTable]:
        labels = self.neighbours.query_labels
        precision = by_class(precision_at_1(self.neighbours), labels, self.dataset.num_classes)
        rows = tuple(
            (self.dataset.class_names[label], float(precision[label]))
            for label in np.unique(labels)
        )
        return {"unseen_classes_metrics": ResultTable(("class name", "precision@1"), rows)}

    def predictions(self) -> ResultTable:
        unseen = np.ones(len(self.split.test), bool)
        return predictions(self.dataset, self.split, unseen, {"limited": self.neighbours}, {})


class UnseenQueries(Protocol):
    """Only the model without the unseen classes, asked only about those, in a gallery of all."""

    name = "unseen_queries"
    summary = "queries of unseen classes in a gallery of all classes"
    source = "a test"
    splits = ("stratified",)
    main_phase = "limited"
    class_table = "unseen_classes_metrics"
    explanation = ("P@1 on queries of classes that the model never trained on.",)

    def split(self, experiment: Experiment, dataset: Dataset) -> Split:
        fraction, seed = experiment.data.test_fraction, experiment.seed
        every = make_split(dataset, method="stratified", test_fraction=fraction, seed=seed)
        unseen = unseen_classes(experiment.unseen, dataset)
        test = every.test[np.isin(dataset.labels[every.test], unseen)]
        parts = fingerprint(dataset, train=every.train, test=test)
        return Split(every.train, test, parts, every.train, every.valid)

    def phases(self, experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
        return (Phase("limited", unseen_classes(experiment.unseen, dataset)),)

    def num_neighbours(self, evaluate: Evaluate, split: Split) -> int:
        return 1

    def evaluate(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        outputs: dict[str, PhaseOutput],
    ) -> UnseenResult:
        return UnseenResult(dataset, split, outputs["limited"].neighbours)

    def metrics(self, experiment: Experiment) -> dict[str, Metric]:
        return by_name(
            Metric(
                name="precision_at_1_macro",
                head="P@1 unseen",
                description="P@1 on the unseen classes",
                scores=partial(scores_of_phase, precision_at_1, "limited"),
                column="P@1 of the unseen",
                place="unseen.precision_at_1_macro",
            ),
            Metric(
                name="r_precision_macro",
                head="R-precision",
                description="R-precision on the unseen classes",
                scores=partial(scores_of_phase, r_precision, "limited"),
                column="R-precision",
            ),
        )

    def columns(self, experiments: Sequence[Experiment]) -> tuple[Column, ...]:
        return columns_of(self.metrics(experiments[0]))

    def describe_phase(self, phase: str, phases: Sequence[str]) -> str:
        return "trained without the unseen classes"

    def describe_split(self, experiment: Experiment, split: Mapping[str, Any]) -> str:
        return f"{split['test_images']} queries of unseen classes"

    def headline(self, summary: Mapping[str, Any]) -> str:
        return f"P@1 unseen {number(summary['unseen']['precision_at_1_macro'])}"

    def outcome(self, summary: Mapping[str, Any]) -> list[OutcomeTable]:
        row = (number(summary["unseen"]["precision_at_1_macro"]),)
        return [OutcomeTable(title="P@1 on the unseen", heads=("P@1",), rows=(row,))]


@pytest.fixture(scope="module")
def third() -> Iterator[None]:
    """The third protocol is there while these tests run."""
    register(UnseenQueries)
    yield
    registry.protocols.remove(UnseenQueries.name)


EXPECTS = """
[[expects]]
metric = "r_precision_macro"
source = "a guess"
value = 0.5
"""


CLAIM = '[[expects]]\nmetric = "r_precision_macro"\nsource = "a guess"\nvalue = 0.5\n'


@pytest.fixture(scope="module")
def runs(third, birds, cache_dir, tmp_path_factory) -> Path:
    """Runs of two experiments of the third protocol, one of which claims something."""
    folder = tmp_path_factory.mktemp("third")
    settings = ["--set", "data.test_fraction=0.5", "--set", "train.epochs=1"]
    for setting in SETTINGS:
        if not setting.startswith(("optimizer", "train.epochs")):
            settings += ["--set", setting]
    places = ["--data-dir", birds, "--cache-dir", cache_dir, "--out", folder / "runs"]
    for name, rate, claim in (("slow", 0.01, ""), ("fast", 0.05, CLAIM)):
        text = (
            f'extends = "{BASELINE}"\nprotocol = "unseen_queries"\n'
            f'optimizer = {{ name = "sgd", lr = {rate} }}\n{claim}'
        )
        (folder / f"{name}.toml").write_text(text)
        options = [*settings, *places, "--device", "cpu", "--wandb", "disabled"]
        with pytest.MonkeyPatch.context() as patch:
            options += ["--set", f"name={name}"]
            assert dml_bench(patch, "run", folder / f"{name}.toml", *options) == 0
    return folder / "runs"


def run_of(runs: Path, name: str) -> Run:
    return read_folder(runs / name / "cub" / "seed-42")


def test_a_third_protocol_trains_its_phase_and_asks_its_queries(runs):
    run = run_of(runs, "fast")
    assert list(run.neighbours) == ["limited"]
    unseen = run.summary["unseen_classes"]
    assert list(run.class_names.values()) == unseen
    assert set(run.held_out["limited"]) == set(run.class_names)
    assert {row["class"] for row in run.predictions} == set(unseen)
    precision = run.summary["unseen"]["precision_at_1_macro"]
    assert measure([run], "precision_at_1_macro").estimate == pytest.approx(precision)


def test_a_third_protocol_is_compared_by_its_own_metrics(runs, third):
    [comparison] = compare(read_sides([runs / "slow", runs / "fast"]))
    assert [row.metric for row in comparison.overall] == [
        "precision_at_1_macro",
        "r_precision_macro",
    ]
    assert len(comparison.classes) == 2


def test_a_third_protocol_has_a_section_of_the_report_with_its_columns_and_claims(
    runs, monkeypatch, tmp_path
):
    assert dml_bench(monkeypatch, "report", runs, "--out", tmp_path / "report") == 0
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Unseen queries on cub" in page
    assert "| P@1 of the unseen | R-precision |" in page
    assert UnseenQueries.explanation[0] in page
    [table] = (tmp_path / "report").rglob("table*.csv")
    rows = {row["experiment"]: row for row in read_csv(table)}
    fast = measure([run_of(runs, "fast")], "r_precision_macro")
    assert float(rows["fast"]["r_precision_macro"]) == pytest.approx(fast.estimate)
    assert float(rows["fast"]["r_precision_macro_low"]) == pytest.approx(fast.low)
    [claims] = (tmp_path / "report").rglob("expectations*.csv")
    [claim] = read_csv(claims)
    assert claim["metric"] == "r_precision_macro"
    assert claim["claim"] == "R-precision on the unseen classes is 50.0%"
    assert float(claim["measured"]) == pytest.approx(fast.estimate)


# A metric that is added


def mean_similarity(neighbours: Neighbours) -> np.ndarray:
    """(query) similarity of the nearest image: a function as `evaluation.metrics` has them."""
    return neighbours.similarities[:, 0].astype(float)


@pytest.fixture
def added(monkeypatch) -> None:
    """One more line in the list of a protocol's metrics."""
    metric = Metric(
        name="nearest_similarity",
        head="similarity",
        description="similarity of the nearest image",
        scores=partial(scores_of_phase, mean_similarity, "all"),
        column="similarity",
    )
    before = class_holdout.p_at_1_metrics
    monkeypatch.setattr(class_holdout, "p_at_1_metrics", lambda: (*before(), metric))


@pytest.mark.usefixtures("blank_figures")
def test_an_added_metric_is_in_tables_comparisons_claims_and_the_report(
    added, tmp_path, monkeypatch
):
    answers = {"all": [[1, 0], [1, 1], [1, 1]], "limited": [[1, 0], [1, 1], [0, 0]]}
    claim = Expectation(metric="nearest_similarity", source="a guess", value=1.0)
    for name in ("a", "b"):
        finish(tmp_path / "runs", experiment(name, expects=(claim,)), answers, unseen=1)

    [comparison] = compare(read_sides([tmp_path / "runs" / name for name in ("a", "b")]))
    assert "nearest_similarity" in [row.metric for row in comparison.overall]

    assert dml_bench(monkeypatch, "report", tmp_path / "runs", "--out", tmp_path / "report") == 0
    [table] = (tmp_path / "report").rglob("table*.csv")
    [first, _] = read_csv(table)
    assert float(first["nearest_similarity"]) == 1.0
    assert {"nearest_similarity_low", "nearest_similarity_high"} <= set(first)
    assert "| similarity |" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    [claims] = (tmp_path / "report").rglob("expectations*.csv")
    verdicts = {row["claim"]: row["measured"] for row in read_csv(claims)}
    assert verdicts == {"similarity of the nearest image is 100.0%": "1.0"}
