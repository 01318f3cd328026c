"""The maps are those of the libraries that people know: our guided backpropagation is captum's
where captum has it, and Grad-CAM that of pytorch-grad-cam with the target that its guide has for
embeddings. The package doesn't need the latter; without it its test is skipped."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, Saliency
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


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize("backbone", ["timm:test_resnet", "timm:test_efficientnet"])
def test_guided_backpropagation_is_that_of_captum_which_knows_relu_alone(backbone, direction):
    hooked, images = network(f"model.backbone={backbone}", size=48), pixels(3, 48)
    score = Scored(hooked, direction)
    theirs = GuidedBackprop(score).attribute(channels_first(images), target=0)
    plain = Saliency(score).attribute(channels_first(images), target=0, abs=False)
    ours = methods["guided"].build(hooked, images, direction)
    has_relu = backbone == "timm:test_resnet"
    assert torch.equal(theirs, plain) is not has_relu
    assert torch.allclose(ours, theirs.relu().amax(1), rtol=1e-4, atol=1e-9) is has_relu


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
