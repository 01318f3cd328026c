"""A record of a run holds what every number is made of, is refused when it was changed, and counts
as the run only where the same code would make it again."""

import hashlib
import json
import lzma
import math
import shutil
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import BASELINE, experiment, finish
from rich.console import Console
from safetensors.numpy import save
from tiny import SETTINGS, dml_bench, refusal, tiny, train

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import Diagnostics, diagnose
from dml_bench.analysis.recording import record_run
from dml_bench.board.page import describe_sessions
from dml_bench.config.experiments import resolve
from dml_bench.data.datasets import open_dataset
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import estimate
from dml_bench.evaluation.thresholds import GuaranteedThreshold
from dml_bench.registry.registries import UnknownName
from dml_bench.runs import record, record_format, record_schema
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.runs.plain_values import from_plain, to_plain
from dml_bench.runs.record import OtherRecord, answers_of, find_record, record_path, write_record
from dml_bench.runs.record_format import Content, packed
from dml_bench.runs.run import RecordedRun, Run, read_folder, run_folders
from dml_bench.system.files import write_json
from dml_bench.system.provenance import describe

RIGHT = {"all": [[1, 1, 0], [1, 0, 0], [1, 1, 1]], "limited": [[1, 0, 0], [1, 1, 0], [0, 0, 1]]}
KINDS = {
    "one hold-out": (),
    "rotated": ("unseen=random:2 x 2",),
    "logits": ("loss=crossentropy", "miner=none", "model.head=identity"),
    "disjoint": ("protocol=class_disjoint", "data.split=half", "unseen=", "evaluate.nmi=true"),
}


@pytest.fixture(params=KINDS)
def run_and_record(request, trained, tmp_path) -> tuple[Run, RecordedRun]:
    run = read_folder(trained("train.epochs=1", *KINDS[request.param]).folder)
    read = read_folder(write_record(tmp_path / "results", run))
    assert isinstance(read, RecordedRun)
    return run, read


def test_every_metric_is_measured_of_a_record_as_of_its_run(run_and_record):
    run, recorded = run_and_record
    for name, metric in metrics_of(run.experiment).items():
        of_run, of_record = metric.scores(run), metric.scores(recorded)
        assert np.array_equal(of_run.labels, of_record.labels)
        rounding = 1 / 500 if name in ("r_precision", "map_at_r") else 0
        assert np.allclose(of_run.values, of_record.values, rtol=0, atol=rounding), name


def test_a_record_says_of_its_run_what_the_run_says(run_and_record):
    run, recorded = run_and_record
    assert recorded.experiment == run.experiment
    assert recorded.metrics == run.metrics
    assert recorded.costs == run.costs
    assert recorded.class_names == run.class_names
    assert recorded.queries_digest == run.queries_digest
    assert recorded.dataset_fingerprint == run.dataset_fingerprint
    assert recorded.split_fingerprint == run.split_fingerprint
    assert recorded.last_session("commit", "code") == {
        key: value for key, value in run.last_session("code").items() if key != "command"
    }
    assert {phase: classes.tolist() for phase, classes in recorded.held_out.items()} == {
        phase: classes.tolist() for phase, classes in run.held_out.items()
    }
    assert len(recorded.records) == len(run.records)
    loss, recorded_loss = run.records[0]["train_loss"], recorded.records[0]["train_loss"]
    assert recorded_loss == pytest.approx(loss, rel=1e-3)


def test_a_run_with_several_hold_outs_has_the_numbers_that_tables_show_with_their_bounds():
    """Of classes that no hold-out leaves out, tables count each once; a mean over the hold-outs
    counts it in each of them, and had the bounds of the other number beside it."""
    results = Path(__file__).parents[2] / "results" / "tuned" / "demo"
    run = read_folder(min(results.rglob("seed-42.json")))
    assert list(run.held_out) == ["limited-1", "limited-2"]
    for name in ("precision_drop_seen_classes", "precision_drop_seen_to_seen_classes"):
        shown = measure([run], name)
        summary: Any = run.summary
        assert abs(summary[name] - shown.estimate) > 1e-4
        assert run.metrics[name] == shown.estimate
        assert (run.metrics[f"{name}_low"], run.metrics[f"{name}_high"]) == (shown.low, shown.high)
    _, holdouts, _ = run.protocol.outcome({**run.summary, **run.metrics})
    first, second = (float(row[3]) for row in holdouts.rows)
    assert float(holdouts.totals[0][3]) == pytest.approx((first + second) / 2, abs=0.1)


def test_the_predictions_of_a_record_are_those_of_its_run_without_names_of_images(run_and_record):
    run, recorded = run_and_record
    for of_run, of_record in zip(run.predictions, recorded.predictions, strict=True):
        for column, value in of_record.items():
            if column.endswith("similarity"):
                assert float(value) == pytest.approx(float(of_run[column]), abs=0.1)
            else:
                assert value == of_run[column], column


@pytest.fixture(scope="module")
def of_apart_classes(birds, cache_dir, tmp_path_factory) -> Run:
    """A run whose gallery has a class that nobody asks about, and lacks the last class of the
    queries."""
    folder = tmp_path_factory.mktemp("apart") / "gulls"
    shutil.copytree(birds / "images", folder / "images")
    lines = ["path,class,split"]
    for image in sorted(folder.rglob("*.jpg")):
        number, among = int(image.parent.name[:3]), "gallery" if image.stem[-1] in "13" else "query"
        part = {6: "gallery", 7: "gallery", 8: "query"}.get(number, among)
        path = image.relative_to(folder).as_posix()
        lines.append(f"{path},{image.parent.name},{part if number > 4 else 'train'}")
    (folder / "table.csv").write_text("\n".join(lines))
    table = "data.dataset={name='csv', table='table.csv'}"
    settings = (table, "data.split=given", "protocol=class_disjoint", "unseen=")
    out = folder.parent / "runs"
    return read_folder(train(folder, cache_dir, out, *settings, "train.epochs=1").folder)


def test_a_record_names_answers_of_classes_that_nobody_asks_about(of_apart_classes, tmp_path):
    """They ended in a KeyError. Of images with several labels, most combinations are rare."""
    run = of_apart_classes
    recorded = read_folder(write_record(tmp_path, run))
    answers = {row["disjoint_predicted"][:3] for row in run.predictions}
    assert answers & {"006", "007"}
    for of_run, of_record in zip(run.predictions, recorded.predictions, strict=True):
        for column in ("class", "disjoint_predicted", "disjoint_vote", "disjoint_correct"):
            assert of_record[column] == of_run[column]
    del recorded.content.facts["answered_only"]  # as records of earlier versions lack it
    answers = {row["disjoint_predicted"] for row in replace(recorded).predictions}
    assert "a class without queries" in answers


def test_queries_of_a_class_that_the_gallery_lacks_add_up(of_apart_classes, tmp_path):
    """Such an honest run could not be submitted: "each query must be of a class of the gallery's
    list"."""
    path = db.submit_run(of_apart_classes, tmp_path / "results", by="me")
    assert db.verify_submissions(path).is_sound
    sorted_into_coarse = replace(of_apart_classes)
    vars(sorted_into_coarse)["coarse_classes"] = {4: "finches", 7: "gulls"}
    assert sorted_into_coarse.coarse_groups.tolist() == [-1, -1, -1, -1, 0, -1, -1, 1]


def test_the_numbers_of_the_json_are_measured_of_the_answers(run_and_record):
    run, recorded = run_and_record
    numbers = recorded.description["numbers"]
    assert set(numbers) == set(metrics_of(run.experiment))
    for name, metric in metrics_of(run.experiment).items():
        of_run = estimate([metric.scores(run)], average=metric.average)
        assert numbers[name] == pytest.approx(of_run, abs=2e-3), name


def test_what_a_record_does_not_have_is_refused_in_one_line(run_and_record):
    _, recorded = run_and_record
    for lacking in (
        lambda: recorded.phases,
        lambda: recorded.embeddings("all"),
        lambda: recorded.models("all"),
        lambda: recorded.weights("all"),
        lambda: recorded.split,
        lambda: recorded.images.paths,
        lambda: recorded.wandb_id,
    ):
        with pytest.raises(ValueError, match=r"seed-42\.json is a record, which has no .*: name"):
            lacking()


def test_an_unknown_phase_is_refused_at_once_with_those_that_the_run_has(run_and_record):
    run, recorded = run_and_record
    names = ", ".join(run.phases)
    for of_phase in (
        run.embeddings,
        run.logits,
        run.models,
        run.weights,
        run.weights_digest,
        recorded.logits,
        recorded.elected,
    ):
        with pytest.raises(UnknownName, match=f"no .* of phase 'limted'.*; there are: {names}$"):
            of_phase("limted")
    with pytest.raises(UnknownName, match="no loss of phase 'limted'.*; there are: "):
        run.objective_weights("limted")
    assert not run.has_embeddings("limted")


def test_the_same_run_is_recorded_as_the_same_bytes(trained, tmp_path):
    run = read_folder(trained("train.epochs=1").folder)
    first, second = (write_record(tmp_path / name, run) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    answers = [record_format.answers_file(path).read_bytes() for path in (first, second)]
    assert answers[0] == answers[1]


def test_a_record_names_no_path_of_a_machine(trained, tmp_path):
    run = read_folder(trained("train.epochs=1").folder)
    path = write_record(tmp_path, run)
    content = record_format.read_content(path, record_format.read_description(path))
    for text in (path.read_text(), json.dumps(content.facts)):
        assert str(run.images.recorded_root) not in text
        assert str(run.folder.parent) not in text


@pytest.mark.parametrize("suffix", [".json", ".safetensors.xz"])
def test_a_changed_file_of_a_record_is_refused_by_its_name(suffix, tmp_path, monkeypatch, capsys):
    path = write_record(tmp_path / "results", finish(tmp_path / "runs", experiment(), RIGHT))
    changed = path.with_suffix(suffix)
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(bytes(data))
    line = refusal(monkeypatch, capsys, "compare", path, path)
    assert str(changed) in line
    assert "dml-bench record RUN" in line


@pytest.mark.parametrize("command", ["predict", "browse"])
def test_a_command_that_needs_more_than_a_record_says_so(
    command, trained, tmp_path, monkeypatch, capsys
):
    path = write_record(tmp_path / "results", read_folder(trained("train.epochs=1").folder))
    photo = ["photo.jpg"] if command == "predict" else []
    line = refusal(monkeypatch, capsys, command, path, *photo)
    assert line.startswith(f"error: {path} is a record, which has no ")
    assert line.endswith(": name the folder of a run")


def test_a_table_of_records_is_that_of_their_runs(tmp_path):
    for seed in (42, 43, 44):
        for name, flip in ((BASELINE, 0), ("ArcFace_cosine_resnet18_sgd_aug", 1)):
            right = {**RIGHT, "all": [[1, 1, 0], [1, flip, 0], [1, 1, 1]]}
            right["all"][seed % 3] = [1, 0, flip]
            run = finish(tmp_path / "runs", experiment(name, seed=seed), right)
            record_run(tmp_path / "results", run)
    of_runs, of_records = (
        studies_of(collect([tmp_path / folder]))[0] for folder in ("runs", "results")
    )
    for of_run, of_record in zip(of_runs.group.lines, of_records.group.lines, strict=True):
        assert (of_record.name, of_record.values) == (of_run.name, of_run.values)
        assert of_record.cost == of_run.cost
    assert of_records.decisions == of_runs.decisions
    assert len(of_runs.decisions.claims) > 0


def test_a_record_of_another_version_is_refused(tmp_path):
    path = write_record(tmp_path / "results", finish(tmp_path / "runs", experiment(), RIGHT))
    description = record_format.read_description(path)
    write_json(path, {**description, "record_version": 6})
    with pytest.raises(ValueError, match="record_version must be 5, got 6"):
        read_folder(path)


def test_a_record_of_other_images_is_not_written_over(tmp_path):
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    path = write_record(tmp_path / "results", run)
    before = path.read_bytes()
    run.summary["dataset"]["fingerprint"] = "e" * 64
    with pytest.raises(OtherRecord, match=r"of other images .*--results DIR"):
        write_record(tmp_path / "results", run)
    assert path.read_bytes() == before


def test_a_damaged_record_is_recorded_again_as_its_error_says(tmp_path, monkeypatch, capsys):
    """The command that the error names ended with the same error."""
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    path = write_record(tmp_path / "results", run)
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"seed": 42', b'"seed": 41'))
    line = refusal(monkeypatch, capsys, "compare", path, path)
    assert line.endswith("restore it, or record the run again with `dml-bench record RUN`")
    typed = ("record", run.folder, "--results", tmp_path / "results")
    assert dml_bench(monkeypatch, *typed) == 0
    assert read_folder(path).metrics == run.metrics


def test_a_record_of_a_run_of_two_codes_names_neither_when_it_is_written_anew(tmp_path):
    """It then had the code of the last session, and counted as made by that alone."""
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    environment = json.loads((run.folder / "environment.json").read_text())
    [session] = environment.pop("sessions")
    del environment["digest"]
    environment["sessions"] = [{**session, "code": "a" * 64}, {**session, "code": "b" * 64}]
    write_json(run.folder / "environment.json", environment)
    path = write_record(tmp_path / "results", read_folder(run.folder))
    before = path.read_bytes()
    assert record_format.read_description(path)["code_sha256"] is None
    record.rewrite_record(path)
    assert path.read_bytes() == before


def test_a_record_says_in_what_earlier_sessions_differed_and_what_decides_counts(
    tmp_path, monkeypatch
):
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    environment = json.loads((run.folder / "environment.json").read_text())
    [session] = environment.pop("sessions")
    del environment["digest"]
    session["packages"] = describe()["packages"]
    older = {**session["packages"], "torch": "1.0"}
    first = {**session, "started_at": "2026-01-01", "device": "T4", "packages": older}
    environment["sessions"] = [first, first, session]
    write_json(run.folder / "environment.json", environment)
    path = write_record(tmp_path / "results", read_folder(run.folder))
    description = record_format.read_description(path)
    assert description["session"]["sessions"] == 3
    assert description["session"]["earlier"] == [{"device": "T4", "packages": {"torch": "1.0"}}]
    assert describe_sessions(description["session"]) == (
        ", in 3 sessions with another device, packages"
    )
    record_schema.SessionRecord.model_validate_json(json.dumps(description["session"]))
    before = path.read_bytes()
    record.rewrite_record(path)
    assert path.read_bytes() == before
    monkeypatch.setattr(record, "code_digest", lambda: description["code_sha256"])
    assert record.why_other_code(read_folder(path)).startswith("torch 1.0, here ")


def test_a_record_that_names_no_packages_is_of_others(tmp_path, monkeypatch):
    """A suite ended in a KeyError where it looked for a finished run."""
    path = write_record(tmp_path, finish(tmp_path / "runs", experiment(), RIGHT))
    description = record_format.read_description(path)
    answers = description.pop("answers_sha256")
    del description["record_version"], description["session"]["packages"]
    record_format.write_description(path, description, answers)
    monkeypatch.setattr(record, "code_digest", lambda: description["code_sha256"])
    assert record.why_other_code(read_folder(path)).startswith("torch none, here ")


def test_a_record_of_one_session_says_nothing_of_others(tmp_path):
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    path = write_record(tmp_path / "results", run)
    session = record_format.read_description(path)["session"]
    assert not {"sessions", "earlier"} & session.keys()


def test_runs_that_hold_out_other_classes_are_recorded_beside_each_other():
    fixed, rotated = experiment(unseen="last:20"), experiment(unseen="random:20 x 5")
    paths = [record_path(Path("results"), run, "cub").as_posix() for run in (fixed, rotated)]
    assert paths == [
        f"results/cub/stratified-last-20/{BASELINE}/seed-42.json",
        f"results/cub/stratified-random-20-x-5/{BASELINE}/seed-42.json",
    ]


def test_groups_by_two_patterns_are_recorded_beside_each_other():
    """The second record was written over the first: both were grouped-by-regex-d-last-20."""
    rules = ("regex:(\\d+)-", "regex:-(\\d+)")
    paths = set()
    for rule in rules:
        run = resolve(BASELINE, overrides=["data.split=grouped", f"data.group={rule}"])
        paths.add(record_path(Path("results"), run, "cub").parents[1].name)
    assert len(paths) == 2
    assert all(name.startswith("grouped-by-regex-d-") for name in paths)


def test_a_run_without_forty_named_classes_is_recorded(tmp_path):
    """The name of its folder had 900 characters, which no file system takes."""
    names = [f"{number:03d}.Rose_throated_Warbler" for number in range(40)]
    lists = (",".join(names), ",".join(names[:-1]))
    folders = [record_path(tmp_path, experiment(unseen=text), "cub").parent for text in lists]
    assert folders[0] != folders[1]
    folders[0].mkdir(parents=True)


def test_forty_classes_of_forty_queries_and_five_phases_fit_into_ten_kilobytes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 40)
    arrays = {}
    for phase in range(5):
        wrong = rng.random((1600, 10)) > 0.6
        classes = np.where(wrong, rng.integers(0, 40, (1600, 10)), labels[:, None])
        similarities = -np.sort(-rng.normal(0.9, 0.05, (1600, 10)), axis=1)
        neighbours = Neighbours(classes, similarities.astype(np.float32), np.arange(40), labels)
        of_phase, _ = answers_of(neighbours, 7, measures_ranking=False)
        arrays |= {f"{phase}.{name}": array for name, array in of_phase.items()}
    assert len(packed(Content({}, arrays), [])) < 10_000


def test_epochs_are_read_as_they_were_written(tmp_path):
    """A value that is undefined is not one that is missing."""
    path = tmp_path / "seed-42.json"
    epochs = [{"epoch": 1, "train_loss": None}, {"epoch": 2, "train_loss": 0.5, "chosen": True}]
    record_format.write_content(path, {}, Content({"records": epochs}, {}))
    said = json.loads(path.read_text())
    assert record_format.read_content(path, said).facts["records"] == epochs
    epochs *= 100
    record_format.write_content(path, {}, Content({"records": epochs}, {}))
    assert record_format.answers_file(path).stat().st_size < 1_000


def test_a_configuration_stands_in_the_json_alone(tmp_path):
    path = write_record(tmp_path / "results", finish(tmp_path / "runs", experiment(), RIGHT))
    said = record_format.read_description(path)
    assert record_format.read_content(path, said).facts["experiment"] == said["configuration"]
    del said["configuration"]
    assert record_format.read_content(path, said).facts["experiment"] is None


def test_answers_are_read_as_they_were_written_and_stand_side_by_side(tmp_path):
    """What phases say of a query is alike: apart, they took a fifth more."""
    rng = np.random.default_rng(0)
    hard = rng.random(2000) < 0.3
    arrays = {"query_labels": rng.integers(0, 40, 2000).astype(np.uint8)}
    for phase in range(5):
        classes = np.where(hard & (rng.random(2000) < 0.8), rng.integers(1, 40, 2000), 0)
        arrays[f"{phase}.nearest"] = classes.astype(np.uint8)
        arrays[f"{phase}.elected"] = np.where(rng.random(2000) < 0.9, classes, 300)
        arrays[f"{phase}.similarity"] = rng.integers(0, 8, 2000).astype(np.uint8)
        arrays[f"{phase}.at_r"] = rng.integers(0, 255, (2000, 2)).astype(np.uint8)
    path = tmp_path / "seed-42.json"
    record_format.write_content(path, {}, Content({}, arrays))
    read = record_format.read_content(path, json.loads(path.read_text())).arrays
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    apart = lzma.compress(save(arrays), filters=record_format.XZ)
    assert len(apart) > 1.1 * record_format.answers_file(path).stat().st_size


def test_answers_that_are_the_same_in_all_phases_stay_apart(tmp_path):
    """Side by side they took three times as much."""
    nearest = np.random.default_rng(0).integers(0, 200, 1600).astype(np.uint8)
    arrays = {f"{phase}.nearest": nearest for phase in range(5)}
    path = tmp_path / "seed-42.json"
    record_format.write_content(path, {}, Content({}, arrays))
    assert record_format.answers_file(path).stat().st_size < 2_000


def test_an_array_with_more_columns_than_names_is_refused(tmp_path):
    path = tmp_path / "seed-42.json"
    wide = {"all.nearest all.elected": np.zeros((4, 3), np.uint8)}
    record_format.write_content(path, {}, Content({}, wide))
    with pytest.raises(ValueError, match=r"must be 2 columns, got \(4, 3\)"):
        record_format.read_content(path, json.loads(path.read_text()))


def test_costs_are_kept_with_eight_digits(tmp_path):
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    run.summary["cost"]["total_seconds"] = 6.203564300019934
    recorded = read_folder(write_record(tmp_path / "results", run))
    assert recorded.summary["cost"]["total_seconds"] == 6.2035643


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_record_of_an_earlier_version_is_read_and_written_anew(tmp_path, version):
    """The second held its configuration in both files and its epochs as rows; the third, an array
    for each column of answers; the fourth had the names of classes in both."""
    path = write_record(tmp_path / "results", finish(tmp_path / "runs", experiment(), RIGHT))
    now, description = read_folder(path), record_format.read_description(path)
    before = (path.read_bytes(), record_format.answers_file(path).read_bytes())
    facts = dict(now.content.facts)
    if version >= 3:
        del facts["experiment"]
        facts["records"] = record_format.columns_of(facts["records"])
    data = save(now.content.arrays, {"run": json.dumps(facts)})
    record_format.answers_file(path).write_bytes(lzma.compress(data))
    sha256 = hashlib.sha256(record_format.answers_file(path).read_bytes()).hexdigest()
    write_json(path, {**description, "record_version": version, "answers_sha256": sha256})
    earlier = read_folder(path)
    assert (earlier.experiment, earlier.records) == (now.experiment, now.records)
    assert earlier.metrics == now.metrics
    record.rewrite_record(path)
    assert (path.read_bytes(), record_format.answers_file(path).read_bytes()) == before


def test_classes_and_similarities_are_read_as_they_were_written():
    classes, expected = np.array([3, 0, 300]), np.array([3, 1, 2])
    codes = record_format.encoded_classes(classes, expected)
    assert codes.tolist() == [0, 1, 301]
    assert record_format.decoded_classes(codes, expected).tolist() == [3, 0, 300]
    values = np.array([0.2, 0.5, 0.2 + 0.63], np.float32)
    steps, ends = record_format.encoded_similarities(values, 63)
    assert steps.tolist() == [0, 30, 63]
    assert record_format.decoded_similarities(steps, ends, 63) == pytest.approx(values)
    fractions = np.array([0.0, 0.5, 1.0, np.nan])
    steps = record_format.encoded_fractions(fractions)
    assert steps.tolist() == [0, 127, 254, 255]
    assert np.array_equal(record_format.decoded_fractions(steps), fractions, equal_nan=True)


# What only a run folder can be asked


@dataclass(frozen=True)
class Part:
    share: float
    ks: tuple[int, ...]


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part
    parts: tuple[Part, ...]
    curve: np.ndarray
    draws: np.ndarray


def test_values_of_dataclasses_are_read_as_they_were_written():
    part = Part(share=1 / 3, ks=(1, 2))
    curve = np.array([0.0, np.nan, 1.0])
    value = Whole("a", part, (part, Part(np.nan, ())), curve, np.array([[1, 2], [3, 4]]))
    read = from_plain(Whole, json.loads(json.dumps(to_plain(value), allow_nan=False)))
    assert (read.name, read.part) == ("a", Part(0.333333, (1, 2)))
    assert math.isnan(read.parts[1].share)
    assert np.array_equal(read.curve, curve, equal_nan=True)
    assert read.draws.tolist() == [[1, 2], [3, 4]]


def test_values_of_an_earlier_version_lack_fields_that_have_a_default_now():
    threshold = GuaranteedThreshold(**dict.fromkeys(GuaranteedThreshold.__slots__, 0))
    plain = to_plain(threshold)
    del plain["known_groups"]
    assert from_plain(GuaranteedThreshold, plain).known_groups is None
    del plain["goal"]
    with pytest.raises(KeyError):
        from_plain(GuaranteedThreshold, plain)


def test_a_long_curve_keeps_its_ends_and_points_between_them():
    [read] = [from_plain(Whole, to_plain(Whole("", Part(0, ()), (), np.arange(1001.0), np.eye(2))))]
    assert len(read.curve) == 33
    assert (read.curve[0], read.curve[16], read.curve[-1]) == (0, 500, 1000)


def test_diagnostics_of_records_are_those_of_their_runs(trained, tmp_path):
    run = read_folder(trained("train.epochs=1", "unseen=random:2 x 2").folder)
    recorded = read_folder(record_run(tmp_path, run))
    of_run, of_record = (diagnostics_of_runs([one]) for one in (run, recorded))
    assert of_record.votes.ks == of_run.votes.ks
    assert of_record.votes.majority == pytest.approx(of_run.votes.majority, abs=1e-3)
    assert of_record.calibration_error == pytest.approx(of_run.calibration_error, abs=1e-5)
    assert of_record.mean("auroc") == pytest.approx(of_run.mean("auroc"), abs=1e-5)
    for way, curve in of_run.enrolment.items():
        means = of_record.enrolment[way].unseen.mean(1)
        assert means[[0, -1]] == pytest.approx(curve.unseen.mean(1)[[0, -1]], abs=1e-3)


def test_diagnostics_of_an_earlier_version_are_said_to_be_missing(trained, tmp_path):
    run = read_folder(trained("train.epochs=1").folder)
    recorded = read_folder(record_run(tmp_path, run))
    assert isinstance(recorded, RecordedRun)
    del recorded.content.facts["diagnostics"]["open_set.limited"]["curves"]
    study = types.SimpleNamespace(has_drop=True, missing=[])
    diagnostics = diagnose(study, types.SimpleNamespace(name=BASELINE, runs=[recorded]), draws=30)
    assert diagnostics.enrolment == {}
    assert diagnostics.votes.ks
    (line,) = study.missing
    assert f"enrolment and open-set numbers of {BASELINE}: {recorded.folder}" in line


def test_a_last_layer_too_large_to_be_refitted_is_said_to_be_missing(
    trained, tmp_path, monkeypatch
):
    """With thousands of classes a report or a record took hours for this one curve."""
    run = read_folder(trained("train.epochs=1", *KINDS["logits"]).folder)
    monkeypatch.setattr("dml_bench.analysis.diagnostics.LARGEST_REFIT", 1000)
    recorded = read_folder(record_run(tmp_path, run))
    for measured, reason in ((run, "each fit takes over a minute"), (recorded, "has none")):
        study = types.SimpleNamespace(has_drop=True, missing=[])
        line = types.SimpleNamespace(name=BASELINE, runs=[measured])
        assert {*diagnose(study, line, draws=5).enrolment} == {"images", "centroids"}
        (text,) = study.missing
        assert text.startswith(f"the refitted last layer of {BASELINE}: ")
        assert text.endswith(reason)


def diagnostics_of_runs(runs: list[Run]) -> Diagnostics:
    line = types.SimpleNamespace(name=BASELINE, runs=runs)
    return diagnose(types.SimpleNamespace(has_drop=True, missing=[]), line, draws=30)


def test_a_record_without_diagnostics_is_said_to_have_none(tmp_path):
    run = finish(tmp_path / "runs", experiment(), RIGHT)
    recorded = read_folder(write_record(tmp_path / "results", run))
    assert isinstance(recorded, RecordedRun)
    with pytest.raises(ValueError, match="is a record, which has no votes of this version: name"):
        recorded.diagnostic("votes", Whole)


# In place of a run


@pytest.fixture
def recorded_birds(trained, birds, cache_dir, tmp_path) -> types.SimpleNamespace:
    run = read_folder(trained().folder)
    path = write_record(tmp_path / "results", run)
    dataset = open_dataset(run.experiment.data.dataset, birds, cache_dir)
    return types.SimpleNamespace(results=tmp_path / "results", path=path, data=dataset, run=run)


def test_a_record_is_found_for_the_same_experiment_data_and_code(recorded_birds):
    r = recorded_birds
    run = find_record(r.results, tiny(), r.data)
    assert run is not None
    assert run.metrics == r.run.metrics
    assert find_record(r.results, tiny("seed=43"), r.data) is None


def test_a_record_counts_though_nobody_asks_for_the_validation_classes(birds, cache_dir, tmp_path):
    """Of apart classes with some that validate, each was made anew: "other classes held out"."""
    settings = (
        "protocol=class_disjoint",
        "data.split=half",
        "data.valid_fraction=0.25",
        "train.epochs=1",
    )
    run = read_folder(train(birds, cache_dir, tmp_path / "runs", *settings).folder)
    write_record(tmp_path / "results", run)
    dataset = open_dataset(run.experiment.data.dataset, birds, cache_dir)
    assert find_record(tmp_path / "results", run.experiment, dataset) is not None


def test_a_record_of_other_code_settings_data_or_packages_does_not_count(
    recorded_birds, monkeypatch
):
    r = recorded_birds

    def why(*overrides: str) -> str:
        with pytest.raises(OtherRecord) as refused:
            find_record(r.results, tiny(*overrides), r.data)
        return str(refused.value).partition(" is of ")[2]

    assert why("optimizer.lr=0.1") == "another configuration (differs in optimizer.lr)"
    description = record_format.read_description(r.path)
    packages = description["session"]["packages"]
    older = {**description["session"], "packages": {**packages, "torch": "1.0"}}
    write_json(r.path, {**description, "session": older})
    assert why().startswith("torch 1.0, here ")
    here = {**packages, "torch": f"{packages['torch'].partition('+')[0]}+cpu"}
    write_json(r.path, {**description, "session": {**older, "packages": here}})
    assert find_record(r.results, tiny(), r.data) is not None
    monkeypatch.setattr(record, "code_digest", lambda: "0" * 64)
    assert why() == "other code"
    r.data.__dict__["fingerprint"] = "e" * 64
    assert why().startswith("other images or labels")


def test_a_suite_records_finished_runs_and_counts_them_where_the_runs_are_gone(
    trained, birds, cache_dir, tmp_path
):
    def statuses(out: Path, page: str) -> list[str]:
        suite = db.plan_suite(
            [BASELINE],
            data_dir=birds,
            overrides=[*SETTINGS, f"name={BASELINE}"],
            cache_dir=cache_dir,
            out=out,
            report=tmp_path / page,
            results=tmp_path / "results",
        )
        results = db.run_suite(suite, device="cpu", jobs=1, console=Console(quiet=True))
        return [result.status for result in results]

    runs = tmp_path / "runs"
    shutil.copytree(trained().folder.parents[2], runs)
    assert statuses(runs, "first") == ["finished earlier"]
    assert len(run_folders(tmp_path / "results")) == 1
    shutil.rmtree(runs)
    assert statuses(runs, "second") == ["finished earlier"]
    assert not list(runs.rglob("weights.safetensors"))
    for name in ("table.csv", "expectations.csv"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_suite_says_what_is_left_costs_where_records_tell(
    trained, birds, cache_dir, tmp_path, monkeypatch, capsys
):
    results = tmp_path / "results"
    write_record(results, read_folder(trained().folder))
    for seed, said in (("43", f"about 0.0 core-hours, estimated from {results}"), ("42", "")):
        typed = ["suite", BASELINE, "--data-dir", birds, "--cache-dir", cache_dir]
        for setting in SETTINGS:
            typed += ["--set", setting]
        typed += ["--set", f"name={BASELINE}", "--seeds", seed, "--out", tmp_path / "none"]
        assert dml_bench(monkeypatch, *typed, "--record", "--results", results, "--print-jobs") == 0
        out, err = capsys.readouterr()
        assert (bool(out), said in err) == (bool(said), True)


def test_runs_and_records_are_compared_with_each_other(trained, tmp_path, monkeypatch, capsys):
    run = trained().folder
    record_of_run = db.record_runs(run, tmp_path / "results", callback=db.Callback())
    assert str(db.compare(run, record_of_run[0])).count("the two are equal on every query") == 1


def test_of_two_runs_with_one_record_the_second_is_named_and_left_out(tmp_path):
    """It was written over the first, and both were counted."""
    for out, seed in (("one", 42), ("one", 43), ("two", 42)):
        finish(tmp_path / "runs" / out, experiment(seed=seed), RIGHT)
    warned: list[str] = []
    callback = db.Callback()
    callback.warn = warned.append
    paths = db.record_runs(tmp_path / "runs", tmp_path / "results", callback=callback)
    assert [path.stem for path in paths] == ["seed-42", "seed-43"]
    [line] = warned
    assert line.startswith(f"{tmp_path}/runs/two/{BASELINE}/cub/seed-42 is left out: ")


def test_a_record_without_its_answers_is_not_passed_over(tmp_path, monkeypatch, capsys):
    """Tables were made of the other seeds, and nothing was said."""
    for seed in (42, 43):
        write_record(tmp_path, finish(tmp_path / "runs", experiment(seed=seed), RIGHT))
    [path] = tmp_path.rglob("seed-43.json")
    record_format.answers_file(path).unlink()
    collection = collect([path.parent])
    assert [run.seed for run in collection.runs] == [42]
    [problem] = collection.problems
    assert problem.startswith(f"{record_format.answers_file(path)} can't be read: No such file")
    for folder in (path, path.parent):
        line = refusal(monkeypatch, capsys, "compare", folder, folder)
        assert line.endswith("restore it, or record the run again with `dml-bench record RUN`")


def test_a_folder_without_a_finished_run_can_t_be_recorded(tmp_path, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "record", tmp_path, "--results", tmp_path / "results")
    assert line.endswith("holds no finished run: name a folder of run folders")
