"""The report says how many corrections of labels were right."""

from types import SimpleNamespace

import pytest

from dml_bench.report.document import Data, Details, Table
from dml_bench.report.label_corrections import corrections_blocks

NONE = {"labels": {"training_images": 50, "wrong_labels": 0, "replaced": 3, "replaced_rightly": 0}}


def counted(wrong: int, replaced: int, rightly: int, after: int) -> dict[str, dict[str, int]]:
    return {
        "labels": {
            "training_images": 50,
            "wrong_labels": wrong,
            "replaced": replaced,
            "replaced_rightly": rightly,
            "wrong_labels_after": after,
        }
    }


def study(**phases_of_runs: list[dict[str, object]]) -> SimpleNamespace:
    """With a line for each name, whose runs have these phases."""
    lines = []
    for name, runs in phases_of_runs.items():
        line_runs = [
            SimpleNamespace(seed=seed, summary={"phases": phases})
            for seed, phases in enumerate(runs, start=42)
        ]
        lines.append(SimpleNamespace(name=name, short=name, runs=line_runs))
    return SimpleNamespace(finished=lines)


def test_a_row_sums_phases_and_seeds_and_the_file_has_each_of_them():
    corrected = [
        {"all": counted(10, 8, 6, 6), "limited": counted(8, 0, 0, 8)},
        {"all": counted(10, 2, 1, 10)},
    ]
    corrected[0]["all"]["labels"] |= {"memorised": 0.5, "seen_through": 0.1}
    corrected[1]["all"]["labels"] |= {"memorised": 0.3, "seen_through": 0.3}
    details, data = corrections_blocks(study(plc=corrected, plain=[{"all": NONE}, {"all": {}}]))
    assert isinstance(details, Details) and isinstance(data, Data)
    (table,) = [block for block in details.blocks if isinstance(block, Table)]
    (row,) = table.rows
    assert [cell.text for cell in row.cells] == [
        *("plc", "150", "28", "10", "7", "24"),
        *("70.0", "25.0", "40.0", "20.0"),
    ]
    heads = [column.head for column in table.columns]
    assert heads[-4:] == ["precision", "recall", "memorised", "seen through"]
    assert data.name == "label_corrections"
    assert data.rows[0] == ["plc", 42, "all", 50, 10, 8, 6, 6, 0.75, 0.6, 0.5, 0.1]
    assert data.rows[1] == ["plc", 42, "limited", 50, 8, 0, 0, 8, None, 0, "", ""]
    assert data.rows[2][:-2] == ["plc", 43, "all", 50, 10, 2, 1, 10, 0.5, pytest.approx(0.1)]


def test_where_no_label_was_made_wrong_on_purpose_nothing_is_said():
    assert list(corrections_blocks(study(plain=[{"all": NONE}, {"all": {}}]))) == []
