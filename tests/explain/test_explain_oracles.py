"""The maps are those of the libraries that people know: captum, and pytorch-grad-cam with the
target that its guide has for embeddings. The package needs neither; without one its tests are
skipped."""

from functools import partial

import numpy as np
import pytest
import torch
from test_explain_methods import directions, network, pixels
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.explain.hooks import HookedEmbedder
from dml_bench.explain.methods import methods
from dml_bench.explain.targets import ScoreDirection


class Scored(nn.Module):
    """The network with the score as its only output, as libraries for classifiers expect it.
    Images are (batch, 3, size, size), as theirs are."""

    def __init__(self, hooked: HookedEmbedder, direction: ScoreDirection):
        super().__init__()
        self.embedder, self.direction = hooked.embedder, direction

    def forward(self, images: Tensor) -> Tensor:
        return self.direction.score(self.embedder(images.permute(0, 2, 3, 1)))[:, None]


def channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float().contiguous().requires_grad_()


def assert_proportional(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal up to a factor for each image; a library may scale its maps."""
    for our, their in zip(ours, theirs, strict=True):
        assert our.max() > 0, "an empty map would be equal to anything"
        assert our / our.max() == pytest.approx(their / their.max(), abs=2e-4)


@pytest.fixture(scope="module")
def hooked() -> HookedEmbedder:
    return network(size=48)


@pytest.fixture(scope="module")
def direction() -> ScoreDirection:
    return ScoreDirection(directions(3))


def test_vanilla_backpropagation_is_the_saliency_of_captum(hooked, direction):
    attr = pytest.importorskip("captum.attr")
    images = pixels(3, 48)
    theirs = attr.Saliency(Scored(hooked, direction)).attribute(channels_first(images), target=0)
    ours = methods["vanilla"].build(hooked, images, direction)
    assert torch.allclose(ours, theirs.amax(1).detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_guided_backpropagation_is_that_of_captum(hooked, direction):
    attr = pytest.importorskip("captum.attr")
    images = pixels(3, 48)
    guided = attr.GuidedBackprop(Scored(hooked, direction))
    theirs = guided.attribute(channels_first(images), target=0).detach()
    ours = methods["guided"].build(hooked, images, direction)
    assert torch.allclose(ours, theirs.relu().amax(1), rtol=1e-4, atol=1e-9)
    assert float(theirs.abs().max()) > 0


def test_grad_cam_is_that_of_captum(hooked, direction):
    attr = pytest.importorskip("captum.attr")
    images = pixels(3, 48)
    cam = attr.LayerGradCam(Scored(hooked, direction), hooked.stage)
    theirs = cam.attribute(channels_first(images), target=0, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(theirs, (48, 48), "bilinear")[:, 0].detach()
    ours = methods["gradcam"].build(hooked, images, direction)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-9)
    assert float(ours.max()) > 0


def test_grad_cam_is_that_of_pytorch_grad_cam_for_the_similarity_to_a_concept(hooked):
    library = pytest.importorskip("pytorch_grad_cam")
    images, concepts = pixels(3, 48), directions(3)
    ours = methods["gradcam"].build(hooked, images, ScoreDirection(concepts)).numpy()

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedder = hooked.embedder

        def forward(self, batch: Tensor) -> Tensor:
            return self.embedder(batch.permute(0, 2, 3, 1))

    with library.GradCAM(model=Embedded(), target_layers=[hooked.stage]) as cam:
        similar = [partial(functional.cosine_similarity, concept, dim=0) for concept in concepts]
        theirs = cam(input_tensor=channels_first(images), targets=similar)
    shown = ours.max(axis=(1, 2)) > 0
    assert shown.any()
    # It scales each map to end at 1 before it enlarges it.
    assert_proportional(ours[shown], theirs[shown])
