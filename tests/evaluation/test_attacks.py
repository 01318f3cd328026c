"""Images changed against a classifier, where the gradient is known."""

import torch
from torch import Tensor

from dml_bench.evaluation.attacks import fgsm, pgd

LABELS = torch.tensor([0, 1, 0])


def classifier(pixels: Tensor) -> Tensor:
    """Class 1 by the brightness of the first pixel, less that of the last."""
    brightness = pixels[:, 0, 0].sum(dim=1) - pixels[:, -1, -1].sum(dim=1)
    return torch.stack([torch.zeros_like(brightness), brightness / 100], dim=1)


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(50, 200, (3, 2, 2, 3)).float()


def test_one_step_raises_what_speaks_for_the_other_class_and_leaves_the_rest():
    before = images()
    change = fgsm(classifier, before, LABELS, 4.0) - before
    towards_1 = torch.tensor([1.0, -1.0, 1.0])  # class 0 is attacked by looking like class 1
    assert torch.equal(change[:, 0, 0], 4 * towards_1[:, None].expand(3, 3))
    assert torch.equal(change[:, -1, -1], -4 * towards_1[:, None].expand(3, 3))
    assert not change[:, 0, 1].any() and not change[:, 1, 0].any()


def test_values_stay_between_black_and_white():
    black_and_white = torch.zeros(3, 2, 2, 3)
    black_and_white[:, 0, 0] = 255.0
    attacked = fgsm(classifier, black_and_white, LABELS, 8.0)
    assert attacked.min() == 0 and attacked.max() == 255


def test_several_steps_end_within_epsilon_and_do_at_least_as_much_harm_as_one():
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    )
    before = images()

    def loss(pixels: Tensor) -> float:
        return torch.nn.functional.cross_entropy(network(pixels / 255), LABELS).item()

    one = fgsm(lambda pixels: network(pixels / 255), before, LABELS, 8.0)
    several = pgd(lambda pixels: network(pixels / 255), before, LABELS, 8.0, steps=10)
    assert (several - before).abs().max() <= 8.0
    assert loss(before) < loss(one) <= loss(several) + 1e-4
    assert all(parameter.grad is None for parameter in network.parameters())


def test_one_step_of_pgd_that_is_cut_back_is_fgsm():
    before = images()
    assert torch.equal(
        pgd(classifier, before, LABELS, 4.0, steps=1), fgsm(classifier, before, LABELS, 4.0)
    )
