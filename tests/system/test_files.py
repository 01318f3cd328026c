"""Files are either whole or not there, and tables come back as they were written."""

import csv
import json
import os

import pytest

from dml_bench.system.files import (
    json_line,
    json_text,
    read_csv,
    read_json,
    write_atomically,
    write_csv,
    write_json,
)


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the new")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_a_writer_that_fails_the_first_time_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "result.bin", lambda file: 1 / 0)
    assert os.listdir(tmp_path) == []


def test_a_new_file_replaces_the_old_one_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"something much longer than the new content")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    seen = []

    def write(file):
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert seen == [b"old"]


def test_bytes_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (happened.append("fsync"), fsync(descriptor))
    )
    monkeypatch.setattr(
        os, "replace", lambda old, new: (happened.append("replace"), replace(old, new))
    )
    write_atomically(tmp_path / "result.bin", lambda file: file.write(b"new"))
    assert happened[:2] == ["fsync", "replace"]


ROWS = [
    ("comma, inside", 1, 0.5),
    ('a "quoted" name', 2, 0.1),
    ("two\nlines", 3, 1e-17),
    ("carriage\r\nreturn", 4, 2 / 3),
    ("Grünspecht 鳥 🐦", 5, -0.0),
    ("", 6, 1.0),
    (" blanks ", 7, 123456789.123456),
]


def test_a_table_comes_back_with_commas_quotes_newlines_and_unicode(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("class name", "test samples", "precision@1"), ROWS)
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["class name", "test samples", "precision@1"]
    assert [(name, int(count), float(value)) for name, count, value in rows] == ROWS


def test_a_table_has_the_same_bytes_on_every_platform(tmp_path):
    write_csv(tmp_path / "table.csv", ("class", "P@1"), [("Wren", 0.25), ("Häher", 1.0)])
    assert (tmp_path / "table.csv").read_bytes() == "class,P@1\nWren,0.25\nHäher,1.0\n".encode()


def test_rows_that_raise_while_they_are_read_leave_the_old_table(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("a",), [(1,)])

    def rows():
        yield (2,)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_csv(path, ("a",), rows())
    assert path.read_text() == "a\n1\n"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_json_comes_back_with_unicode(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"class": "Häher 鳥", "drop": [0.1, None, True]})
    assert read_json(path) == {"class": "Häher 鳥", "drop": [0.1, None, True]}
    assert json.loads(path.read_text(encoding="utf-8"))["class"] == "Häher 鳥", (
        "any program can read it"
    )
    assert "Häher" in path.read_text(encoding="utf-8")


NAMES = [
    "=1+1",
    "+1",
    "-5",
    "@me",
    "\t=1",
    "'=1",
    "''-x",
    "'cause",
    "a=b",
    "",
    "b|c",
    '"q", r',
    "حقيبة 👜",
]


def test_a_text_that_a_spreadsheet_would_calculate_is_written_as_text_and_read_back_as_it_was(
    tmp_path,
):
    write_csv(tmp_path / "table.csv", ["class", "drop"], [(name, -0.5) for name in NAMES])
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        written = [row["class"] for row in csv.DictReader(file)]
    assert not [cell for cell in written if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert written[:3] == ["'=1+1", "'+1", "'-5"]
    assert [row["class"] for row in read_csv(tmp_path / "table.csv")] == NAMES
    assert {row["drop"] for row in read_csv(tmp_path / "table.csv")} == {"-0.5"}


def test_ordinary_names_and_numbers_are_written_as_they_are(tmp_path):
    write_csv(tmp_path / "table.csv", ["class", "drop"], [("001.Auk", -0.25), ("it's, so", 1)])
    assert (tmp_path / "table.csv").read_bytes() == b'class,drop\n001.Auk,-0.25\n"it\'s, so",1\n'


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_what_is_undefined_is_null_in_json(tmp_path):
    value = {"drop": float("nan"), "deep": [1.5, (float("inf"), None)], "text": "NaN"}
    write_json(tmp_path / "value.json", value)
    for text in ((tmp_path / "value.json").read_text(), json_text(value), json_line(value)):
        parsed = json.loads(text, parse_constant=refuse)
        parsed.pop("digest", "")
        assert parsed == {"drop": None, "deep": [1.5, [None, None]], "text": "NaN"}
