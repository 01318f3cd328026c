"""A run on photos with a catalogue: who trains, what is kept, and what the report says of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import train

import dml_bench as db
from dml_bench.analysis.catalogue import answers_of, catalogue_images, catalogue_rows, has_catalogue
from dml_bench.runs.run import Run, open_run


@pytest.fixture(scope="module")
def folder(birds, cache_dir, tmp_path_factory) -> Path:
    """The run of eight species, each with five training photos, two test photos and one studio
    photo."""
    photos = tmp_path_factory.mktemp("photos")
    for species in sorted((birds / "images").iterdir()):
        for number, photo in enumerate(sorted(species.iterdir())):
            part = "train" if number < 5 else "test" if number < 7 else "catalogue"
            place = photos / part / species.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, place)
    out = tmp_path_factory.mktemp("runs")
    settings = ("data.dataset=folder", "data.split=given", "train.epochs=1")
    return train(photos, cache_dir, out, *settings).folder


@pytest.fixture(scope="module")
def run(folder) -> Run:
    return open_run(folder)


def test_studio_photos_are_embedded_and_are_in_no_other_part(run):
    parts = [image.part for image in run.split]
    assert (parts.count("train"), parts.count("test"), parts.count("catalogue")) == (40, 16, 8)
    for phase in run.phases:
        embeddings = run.embeddings(phase)
        studio = embeddings.images("catalogue")
        assert {run.split[image].part for image in studio} == {"catalogue"}
        assert embeddings.vectors("catalogue").shape[0] == 8
        others = np.concatenate([embeddings.gallery_images, embeddings.query_images])
        assert not np.isin(studio, others).any()


def test_the_rows_are_of_the_model_of_all_classes_and_of_the_one_without_the_unseen(run):
    assert has_catalogue(run)
    rows = catalogue_rows([run])
    assert [(row.model, row.classes) for row in rows] == [
        ("all", "all"),
        ("all", "unseen"),
        ("limited", "unseen"),
    ]
    images = catalogue_images(run, "all")
    nearest = images.catalogue_labels[(images.query @ images.catalogue.T).argmax(1)]
    assert rows[0].catalogue.estimate == pytest.approx((nearest == images.query_labels).mean())
    by_gallery = run.neighbours["all"].labels[:, 0] == images.query_labels
    assert rows[0].field.estimate == pytest.approx(by_gallery.mean())
    assert rows[0].beside[0] == pytest.approx(rows[0].catalogue.estimate)
    assert sorted(rows[0].field_only) == [1, 2, 5, 10]


def test_photos_of_held_out_classes_have_no_part_in_the_mean_of_the_field(run, monkeypatch):
    seen = []
    original = type(catalogue_images(run, "limited")).centred

    def centred(images, of_mean):
        seen.append(set(images.field_labels[of_mean].tolist()))
        return original(images, of_mean)

    monkeypatch.setattr("dml_bench.evaluation.catalogue.CatalogueImages.centred", centred)
    answers_of(run, "limited", run.held_out["limited"])
    assert len(seen[0]) == 6
    assert seen[0].isdisjoint(run.held_out["limited"].tolist())


def test_the_report_has_a_table_of_the_catalogue(folder, tmp_path, blank_figures):
    db.write_report(folder, out=tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "The catalogue as gallery" in text
    assert "catalogue, centred" in text
    (table,) = (tmp_path / "report").glob("catalogue*.csv")
    assert "field photos alone,10," in table.read_text(encoding="utf-8")


def test_a_run_without_studio_photos_has_no_catalogue(trained):
    assert not has_catalogue(open_run(trained("train.precision=float32").folder))
