"""The report says how right logits are of images that were changed against them."""

from types import SimpleNamespace

from dml_bench.report.attacks import attacks_blocks
from dml_bench.report.document import Data, Details, Table


def run(seed: int, clean: float, fgsm: float, pgd: float) -> SimpleNamespace:
    attacked = {
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
    details, data = attacks_blocks(SimpleNamespace(finished=[attacked, plain]))
    assert isinstance(details, Details) and isinstance(data, Data)
    (table,) = [block for block in details.blocks if isinstance(block, Table)]
    (row,) = table.rows
    assert [cell.text for cell in row.cells] == ["mixup", "2", "4", "60.0", "30.0", "10.0"]
    assert data.name == "attacks"
    assert data.rows == [
        ["mixup", 42, "all", 4.0, 10, 0.5, 0.2, 0.1],
        ["mixup", 43, "all", 4.0, 10, 0.7, 0.4, 0.1],
    ]


def test_where_no_image_was_attacked_nothing_is_said():
    assert list(attacks_blocks(SimpleNamespace(finished=[]))) == []
