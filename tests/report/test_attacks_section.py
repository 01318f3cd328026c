"""The report says how right logits are of images that were changed against them."""

from types import SimpleNamespace

import numpy as np
import pytest

from dml_bench.report.attacks import attacks_blocks
from dml_bench.report.document import Data, Details, Table


def run(
    seed: int, clean: float, fgsm: float, pgd: float, right: dict[str, list[str]] | None = None
) -> SimpleNamespace:
    attacked = {
        "right": right or {},
        "epsilon": 4.0,
        "steps": 10,
        "logits_accuracy_clean": clean,
        "logits_accuracy_fgsm": fgsm,
        "logits_accuracy_pgd": pgd,
    }
    return SimpleNamespace(seed=seed, summary={"phases": {"all": {"attacked": attacked}}})


def test_a_row_is_the_mean_over_seeds_and_the_file_has_each_of_them():
    attacked = SimpleNamespace(
        name="mixup", short="mixup", runs=[run(42, 0.5, 0.2, 0.1), run(43, 0.7, 0.4, 0.1)]
    )
    plain = SimpleNamespace(
        name="plain",
        short="plain",
        runs=[SimpleNamespace(seed=42, summary={"phases": {"all": {}}})],
    )
    details, data, changes = attacks_blocks(SimpleNamespace(finished=[attacked, plain]))
    assert isinstance(details, Details) and isinstance(data, Data)
    (table,) = [block for block in details.blocks if isinstance(block, Table)]
    (row,) = table.rows
    assert [cell.text for cell in row.cells] == ["mixup", "2", "4", "60.0", "30.0", "10.0"]
    assert data.name == "attacks"
    assert changes.rows == []  # runs of before have no answers image by image
    assert data.rows == [
        ["mixup", 42, "all", 4.0, 10, 0.5, 0.2, 0.1],
        ["mixup", 43, "all", 4.0, 10, 0.7, 0.4, 0.1],
    ]


def answers(rng: np.random.Generator, clean: float, attacked: float) -> dict[str, list[str]]:
    """Ten classes of 40 images that are right as often."""
    shares = {"clean": clean, "fgsm": attacked, "pgd": attacked}
    right = {}
    for attack, share in shares.items():
        digits = np.where(rng.random((10, 40)) < share, "1", "0")
        right[attack] = ["".join(images) for images in digits]
    return right


def test_answers_image_by_image_give_intervals_and_differences_from_the_first():
    rng = np.random.default_rng(0)
    lines = []
    for name, clean in (("plain", 0.8), ("mixup", 0.4)):
        runs = []
        for seed in (42, 43, 44):
            right = answers(rng, clean, 0.1)
            means = ["".join(right[attack]).count("1") / 400 for attack in right]
            runs.append(run(seed, *means, right))
        lines.append(SimpleNamespace(name=name, short=name, runs=runs))
    details, _, changes = attacks_blocks(SimpleNamespace(finished=lines))
    table, beside = (block for block in details.blocks if isinstance(block, Table))
    plain, mixup = table.rows
    firsts = [run.summary["phases"]["all"]["attacked"] for run in lines[0].runs]
    expected = np.mean([attacked["logits_accuracy_clean"] for attacked in firsts])
    assert plain.cells[3].sort == pytest.approx(expected)
    assert plain.cells[3].text.startswith(f"{100 * expected:.1f} [")
    (row,) = beside.rows
    assert row.cells[3].sort == pytest.approx(mixup.cells[3].sort - plain.cells[3].sort)
    low, high = row.cells[3].text.partition("[")[2].rstrip("]").split(", ")
    assert changes.rows[0][:4] == ["mixup", "plain", "logits_accuracy_clean", 3]
    assert changes.rows[0][4] == pytest.approx(row.cells[3].sort)
    assert -60 < float(low) < 100 * row.cells[3].sort < float(high) < -20


def test_where_no_image_was_attacked_nothing_is_said():
    assert list(attacks_blocks(SimpleNamespace(finished=[]))) == []
