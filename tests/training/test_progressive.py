"""Training images that grow with the epochs and are turned, tilted and relit: the same bits after
any interruption."""

from pathlib import Path

import pytest
import torch
from tiny import StopsAfter, tiny, train

from dml_bench.data.inputs import ImageInputs
from dml_bench.models.embedder import Embedder, build_embedder

GROWING = ("images.progressive=[16, 24, 32]",)
HEAVY = (
    "augment.dihedral=0.5",
    "augment.rotate=20",
    "augment.zoom=1.2",
    "augment.warp=0.2",
    "augment.lighting=0.2",
)


def weights(folder: Path) -> list[bytes]:
    return [(folder / phase / "weights.safetensors").read_bytes() for phase in ("all", "limited")]


@pytest.mark.parametrize("settings", [GROWING, HEAVY], ids=["growing", "heavy"])
def test_a_run_that_was_stopped_again_and_again_ends_as_one_that_never_was(
    birds, cache_dir, tmp_path, settings, trained
):
    for epochs in (1, 2, 2):
        with pytest.raises(KeyboardInterrupt):
            train(birds, cache_dir, tmp_path / "stopped", *settings, callback=StopsAfter(epochs))
    stopped = train(birds, cache_dir, tmp_path / "stopped", *settings)
    assert weights(stopped.folder) == weights(trained(*settings).folder)
    assert weights(stopped.folder) != weights(trained().folder)


def test_the_network_trains_on_growing_images_and_is_asked_at_full_size(
    birds, cache_dir, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    trained: list[int] = []
    sizes: set[int] = set()
    original = Embedder.features

    def spy(self: Embedder, pixels: torch.Tensor) -> torch.Tensor:
        if self.training:
            trained.append(pixels.shape[1])
        else:
            sizes.add(pixels.shape[1])
        return original(self, pixels)

    monkeypatch.setattr(Embedder, "features", spy)
    train(birds, cache_dir, tmp_path, *GROWING)
    assert trained == [side for steps in (4, 3) for side in (16, 24, 32) for _ in range(steps)]
    assert sizes == {32}


def test_a_start_is_trained_at_full_size_whatever_follows(
    birds, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    sides: list[int] = []
    original = ImageInputs.train

    def spy(self: ImageInputs, images, *, phase: str, epoch: int, view: int = 0) -> torch.Tensor:
        batch = original(self, images, phase=phase, epoch=epoch, view=view)
        if self.experiment.name == "classifier":
            sides.append(batch.shape[1])
        return batch

    monkeypatch.setattr(ImageInputs, "train", spy)
    train(
        birds,
        tmp_path / "cache",  # where no other test has trained this start
        tmp_path,
        "images.progressive=[16, 32]",
        "start=classifier",
        "start.epochs=1",
        "start.batch_size=16",
    )
    assert sides and set(sides) == {32}


def test_a_size_that_the_backbone_can_not_take_is_refused_before_anything_is_trained():
    with pytest.raises(
        ValueError, match=r"a size of images\.progressive is 24, and timm:test_vit can't take it"
    ):
        build_embedder(
            tiny(
                "model.backbone=timm:test_vit",
                "images.size=160",
                "images.progressive=[24, 160]",
                "augment.random_crop_from=0",
            )
        )
