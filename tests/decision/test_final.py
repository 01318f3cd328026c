"""The final photos are seen by each backbone once, and by each that has weights of its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dml_bench.decision import final
from dml_bench.decision.decide import by_catalogue
from dml_bench.decision.final import FinalPhotos
from dml_bench.decision.parts import Parts, write_catalogue
from dml_bench.runs.run import read_folder

FROZEN = (
    "model.trainable=head",
    "augment.random_crop_from=0",
    "augment.horizontal_flip=0",
)


@pytest.fixture
def opened(birds) -> FinalPhotos:
    files = sorted((birds / "images").glob("*/*.jpg"))[::4]
    return FinalPhotos(files, [file.parent.name for file in files], "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("other", "times"), [("seed=43", 2), ("model.head.dim=64", 1)])
def test_a_backbone_with_other_weights_sees_the_photos_itself(
    other, times, opened, trained, monkeypatch
):
    read: list[int] = []
    real = final.photo_batches

    def counted(view, files: list[Path], size: int):
        read.append(len(files))
        return real(view, files, size)

    monkeypatch.setattr(final, "photo_batches", counted)
    runs = [read_folder(trained(*FROZEN, *more).folder) for more in ((), (other,))]
    together = [opened.outputs(run, "all")[0] for run in runs]
    assert len(read) == times
    for run, outputs in zip(runs, together, strict=True):
        alone, labels = FinalPhotos(opened.files, opened.classes, "cpu").outputs(run, "all")
        assert torch.equal(outputs, alone)
        assert len(np.unique(labels)) == 8


def test_a_final_photo_that_is_a_studio_photo_too_does_not_answer_for_itself(
    opened, trained, tmp_path
):
    parts = Parts(
        photos=tmp_path, out=tmp_path, class_names=(), left_out=(), num_photos=0, reason=""
    )
    copies = [Path(shutil.copy(file, tmp_path / f"studio_{file.name}")) for file in opened.files]
    with Image.open(copies[0]) as image:
        image.save(copies[0], "PNG")
    rows = zip(map(str, copies), opened.classes, strict=True)
    write_catalogue(list(rows), tmp_path)
    assert by_catalogue(opened, parts, read_folder(trained(*FROZEN).folder), "cpu") is None
    assert opened.without_copies_of(copies[:3]).files == opened.files[3:]
    assert opened.without_copies_of([]) is opened


def test_photos_of_which_none_can_be_read_are_an_error_of_one_line(trained, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    run = read_folder(trained(*FROZEN).folder)
    with pytest.raises(ValueError, match="of 1 photos none can be read, as .*broken.jpg"):
        FinalPhotos([broken], [next(iter(run.class_ids))], "cpu").outputs(run, "all")
