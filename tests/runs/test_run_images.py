"""A run finds its images from any folder, after they or it were moved, and takes no others for
them."""

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from handmade import experiment
from tiny import refusal, train

from dml_bench.browse.html_map import thumbnails
from dml_bench.browse.run_images import read_browse_table
from dml_bench.explain.images import RunImages
from dml_bench.gallery.store import run_gallery
from dml_bench.runs.run import open_run
from dml_bench.system.files import write_csv


@pytest.fixture(scope="module")
def trained(birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """project/ with a folder of birds, named relatively in the command, and runs/."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(birds, project / "birds")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(project)
        train(Path("birds"), cache_dir, Path("runs"), "train.epochs=1")
    return project


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; its run still says that it was made at the other place."""
    return shutil.copytree(trained, tmp_path / "project")


def run_in(project: Path) -> Path:
    (path,) = project.glob("runs/*/cub/seed-42")
    return path


def test_what_was_named_relatively_is_found_from_any_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run(run_in(trained))
    assert run.images.root == trained / "birds"
    assert run.summary["dataset"]["root"] == str(trained / "birds")


def test_images_and_runs_that_were_moved_together_find_each_other(
    trained, project, tmp_path, monkeypatch
):
    run = open_run(run_in(project))
    assert run.images.root == trained / "birds", "the recorded folder comes first"
    hidden = trained.with_name("hidden")
    trained.rename(hidden)
    try:
        assert replace(run).images.root == project / "birds"
    finally:
        hidden.rename(trained)


def lost(project: Path, summary: dict) -> dict:
    """The summary as if the images had been in a folder that is no more."""
    return summary | {
        "dataset": summary["dataset"] | {"root": "/gone/birds", "root_from_run": "gone"}
    }


def test_images_that_are_gone_are_said_to_be_and_found_where_a_person_says(project):
    run = open_run(run_in(project))
    originals = replace(run, summary=lost(project, run.summary))
    with pytest.raises(
        ValueError,
        match=(
            rf"the images of {run.folder} are not in /gone/birds nor in {run.folder}/gone: say"
            r" where with --data-dir"
        ),
    ):
        originals.images.require()
    assert replace(originals, data_dir=project / "birds").images.root == project / "birds"
    assert replace(originals, data_dir=project).images.root == project / "birds", (
        "as `run` finds it in the folder above"
    )
    with pytest.raises(
        ValueError, match="are not in /elsewhere nor in /elsewhere/birds: say where"
    ):
        replace(originals, data_dir=Path("/elsewhere")).images.require()


def repaint(folder: Path) -> None:
    images = sorted(folder.glob("images/*/*.jpg"))
    last = images[-1].read_bytes() + b" "
    for image in images:
        image.write_bytes(last)


@pytest.mark.parametrize("verb", ["evidence", "explain", "export", "umap", "browse", "wandb log"])
def test_every_verb_that_opens_images_takes_their_folder_and_refuses_other_images(
    project, tmp_path, verb, monkeypatch, capsys
):
    repaint(project / "birds")
    out = (
        []
        if verb in ("browse", "wandb log")
        else ["--out", tmp_path / ("map.html" if verb == "umap" else "out")]
    )
    if verb == "browse" and find_spec("fiftyone") is None:
        pytest.skip("no FiftyOne: pip install 'dml-bench[browse]'")
    line = refusal(
        monkeypatch, capsys, *verb.split(), run_in(project), *out, "--data-dir", project / "birds"
    )
    assert (
        line
        == f"error: {project / 'birds'} holds other images than {run_in(project)} is of: give their"
        " own folder with --data-dir DIR"
    )
    assert not (tmp_path / "out").exists()


def test_an_image_that_was_changed_is_named_and_the_others_are_shown(project, tmp_path):
    run = open_run(run_in(project), project / "birds")
    material = RunImages(run)
    first, second = (material.image(index) for index in (0, 1))
    first.file.write_bytes(second.file.read_bytes())
    assert material.pixels(second).shape == (32, 32, 3)
    with pytest.raises(
        ValueError,
        match=(
            f"{first.file} was changed after .* was run: put it back, or give the folder .* with"
            " --data-dir DIR"
        ),
    ):
        material.pixels(first)
    second.file.unlink()
    with pytest.raises(ValueError, match=f"{second.file} is gone since"):
        material.pixels(second)
    images = read_browse_table(run)
    _, grey = thumbnails(list(zip(images.paths, images.digests, strict=True)), 8, lambda *at: None)
    assert grey == 2, "on the page of maps they stay grey"
    assert run.images.changed(tmp_path / "cache") == [first.path, second.path]


def test_the_gallery_of_a_run_knows_its_files_by_content_though_they_are_gone(project):
    run = open_run(run_in(project))
    shutil.rmtree(project / "birds")
    assert all(len(entry.sha256) == 64 for entry in run_gallery(run, "all").entries)


def test_a_run_from_before_images_had_digests_checks_the_whole_folder_that_is_named(project):
    run = open_run(run_in(project), project / "birds")
    rows = [(image.path, image.class_name, image.part) for image in run.split]
    write_csv(run.folder / "split.csv", ("path", "class", "part"), rows)
    old = replace(run, data_dir=project / "birds")
    assert old.images.root == project / "birds"
    repaint(project / "birds")
    with pytest.raises(
        ValueError,
        match=(
            r"is of other images or labels \(fingerprint .*: give their own folder with"
            r" --data-dir DIR"
        ),
    ):
        replace(old).images.require()


def test_where_the_images_lie_is_no_part_of_an_experiment(trained, birds, cache_dir, monkeypatch):
    assert experiment().data.dataset.options == {"crop_to_box": False}
    assert train(trained / "birds", cache_dir, trained / "runs", "train.epochs=1").already_finished
