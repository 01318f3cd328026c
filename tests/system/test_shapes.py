"""Shapes in signatures: what is not of them is caught in the tests, and costs nothing elsewhere."""

import os
import subprocess
import sys
from typing import Annotated

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dml_bench.evaluation.metrics import by_class
from dml_bench.evaluation.search import Neighbours, search
from dml_bench.losses.objective import Objective
from dml_bench.models.embedder import Embedder
from dml_bench.runs.arrays import write_logits
from dml_bench.system.shapes import Bool, Float, Int, WrongShape, shaped

UNIT = np.eye(4, dtype=np.float32)
LABELS = np.arange(4)


@shaped
def pair(
    query: Annotated[np.ndarray, Float("query dim")],
    labels: Annotated[np.ndarray, Int("query")] | None = None,
    mask: Annotated[np.ndarray, Bool("3")] | None = None,
    more: int = 0,
) -> tuple[Annotated[np.ndarray, Float("dim query")], int]:
    return query.T[more:], more


def test_what_fits_passes_whatever_the_width_of_its_numbers():
    for query in (np.zeros((3, 2), np.float16), torch.zeros(3, 2, dtype=torch.bfloat16)):
        assert pair(query, np.zeros(3, np.uint8), np.ones(3, bool))[1] == 0
    assert pair(np.zeros((3, 2)))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([np.zeros(3)], r"query of pair must be \(query, dim\), got \(3,\)"),
        ([np.zeros((3, 2), int)], "query of pair must hold float numbers, got int64"),
        (
            [np.zeros((3, 2)), np.zeros(2, int)],
            r"labels of pair must be \(query\), got \(2,\) where",
        ),
        ([np.zeros((3, 2)), None, np.ones(2, bool)], r"mask of pair must be \(3\), got \(2,\)"),
        (
            [np.zeros((3, 2)), None, None, 1],
            r"what pair returns must be \(dim, query\), got \(1, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name_and_both_shapes(arguments, problem):
    with pytest.raises(WrongShape, match=problem):
        pair(*arguments)


def objective() -> Objective:
    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.sum()

    module = nn.Identity()
    module.forward = loss
    return Objective(module, None, unit_vectors=True)


BORDERS = {
    "search": lambda: search(UNIT, UNIT[:3], LABELS, LABELS, k=1),
    "Neighbours": lambda: Neighbours(LABELS[:, None], UNIT[:3, :1], LABELS, LABELS),
    "metrics": lambda: by_class(np.zeros(3), LABELS, 4),
    "loss": lambda: objective()(torch.eye(4), torch.arange(3)),
    "embedder": lambda: Embedder(nn.Identity(), nn.Identity(), torch.zeros(3), torch.ones(3)).embed(
        torch.zeros(1, 8, 8, 3)
    ),
    "runs": lambda: write_logits(None, LABELS[:3], UNIT),
}


@pytest.mark.parametrize("border", BORDERS)
def test_a_wrong_shape_is_caught_where_arrays_pass_from_room_to_room(border):
    with pytest.raises(WrongShape):
        BORDERS[border]()


def test_outside_of_the_tests_a_function_is_as_it_was_written():
    code = (
        "from dml_bench.evaluation.search import search, Neighbours;"
        "print(hasattr(search, '__wrapped__'), hasattr(Neighbours.__init__, '__wrapped__'))"
    )
    environment = {name: value for name, value in os.environ.items() if "SHAPES" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]
    assert hasattr(search, "__wrapped__")
