"""How far test images scatter against training images, from finished runs: each number is that of
the stored embeddings, by phase, seed and group of classes."""

import math

import numpy as np
import pytest

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import diagnose
from dml_bench.analysis.scatter import mean_over_holdouts
from dml_bench.report.document import Details, Table
from dml_bench.report.sections import scatter
from dml_bench.runs.run import read_folder


@pytest.fixture(scope="module")
def folders(trained) -> list:
    return [trained().folder, trained("seed=43").folder]


@pytest.fixture(scope="module")
def means(folders):
    return db.measure_scatter(folders).means.set_index(["model", "classes", "measure"])["value"]


def distance_to_training(folder, phase: str, *, unseen: bool) -> float:
    """The mean over classes of the mean cosine distance from its test to its training images."""
    run = read_folder(folder)
    stored, neighbours = run.embeddings(phase), run.neighbours[phase]
    distances = []
    for label in run.class_names:
        if (label in run.held_out["limited"]) == unseen:
            test = stored.query[neighbours.query_labels == label]
            training = stored.gallery[neighbours.gallery_labels == label]
            distances.append(1 - (test @ training.T).mean())
    return float(np.mean(distances))


@pytest.mark.parametrize("classes", ["seen", "unseen"])
@pytest.mark.parametrize("model", ["all", "limited"])
def test_a_distance_is_the_mean_over_seeds_and_classes_of_its_group(folders, means, model, classes):
    by_seed = [distance_to_training(path, model, unseen=classes == "unseen") for path in folders]
    assert means[model, classes, "test_to_train"] == pytest.approx(np.mean(by_seed), abs=1e-6)


def test_the_difference_is_that_of_the_two_models_on_the_same_images(means):
    for classes in ("seen", "unseen"):
        for measure in ("train_dispersion", "test_to_train", "test_margin"):
            difference = means["limited", classes, measure] - means["all", classes, measure]
            assert means["limited - all", classes, measure] == pytest.approx(difference, abs=1e-9)


def test_classes_have_a_row_for_each_phase_and_seed(folders):
    classes = db.measure_scatter(folders).classes
    assert len(classes) == 2 * 2 * 8
    unseen = classes[classes["unseen"]]
    assert set(unseen["phase"]) == {"limited"}
    assert set(unseen["class"]) == set(read_folder(folders[0]).summary["unseen_classes"])


def test_the_report_has_the_scatter_of_the_experiments_that_it_looks_at_closely(folders):
    (study,) = studies_of(collect(folders[:1]))
    (line,) = study.finished
    data, details = scatter(study, {line.name: diagnose(study, line, 1)})
    assert data.name == "scatter"
    assert isinstance(details, Details)
    table = details.blocks[-1]
    assert isinstance(table, Table)
    models = [f"{row.cells[1].text} {row.cells[2].text}" for row in table.rows]
    assert models[:3] == ["seen all", "seen limited", "seen difference"]
    assert len(models) == 6


def test_a_record_which_has_no_embeddings_is_named_as_missing(folders, tmp_path):
    db.record_runs(folders[0], tmp_path)
    with pytest.raises(ValueError, match="no run here has embeddings of two phases"):
        db.measure_scatter(tmp_path)
    (study,) = studies_of(collect([tmp_path]))
    (line,) = study.finished
    assert list(scatter(study, {line.name: diagnose(study, line, 1)})) == []
    assert any("has no stored embeddings" in missing for missing in study.missing)


def test_of_several_holdouts_an_image_has_the_mean_over_those_of_its_group():
    values = np.array([[1.0, 2.0, math.nan], [3.0, 4.0, 5.0]])
    belongs = np.array([[True, False, False], [True, True, False]])
    means = mean_over_holdouts(values, belongs)
    assert means.tolist() == pytest.approx([2, 4, math.nan], nan_ok=True)


def test_the_summary_of_a_run_has_the_scatter_of_both_phases_with_intervals_and_hubness(folders):
    phases = read_folder(folders[0]).summary["phases"]
    for phase, of_phase in phases.items():
        for classes, is_unseen in (("seen", False), ("unseen", True)):
            mean = of_phase["scatter"][classes]["test_to_train"]
            expected = distance_to_training(folders[0], phase, unseen=is_unseen)
            assert mean["estimate"] == pytest.approx(expected, abs=1e-6)
            assert mean["low"] <= mean["estimate"] <= mean["high"]
        assert of_phase["hubness"]["largest"] >= 1
    assert phases["all"]["scatter"] != phases["limited"]["scatter"]
