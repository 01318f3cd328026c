"""What is read back is what was written: a damaged file is healed to the same bits, or refused in
one line that names it."""

import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import persisted
import pytest
from persisted import KINDS, Bits, Kind
from processor_time import with_slow

from dml_bench.system.files import (
    Damaged,
    check,
    is_sealed,
    is_whole,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_tensors,
)

TEXT = [
    kind
    for kind in KINDS
    if kind.file.endswith((".json", ".jsonl")) and "pretrained" not in kind.file
]
RETRAINED = [
    kind
    for kind in KINDS
    if kind.file.endswith(("pretrained/*.json", "*.state.pt", "judged.safetensors"))
]
"""Each takes two seconds of training; others of their kind, such as a checkpoint, don't."""
FOREIGN = {
    "empty": b"",
    "a list": b"[1, 2]\n",
    "null": b"null\n",
    "a number": b"3\n",
    "no keys": b"{}\n",
    "other types": (
        b'{"name": 3, "sessions": {}, "files": [], "dataset": null, "phase": [], "schema_version":'
        b' 1, "format": 2}\n'
    ),
    "cut off": b'{"name": "a',
    "binary": bytes(range(256)),
    "zeros, as a power cut leaves": bytes(300),
    "not a number": b"NaN\n",
    "nested deeply": b"[" * 200_000,
    "an endless number": b"9" * 5000,
    "not UTF-8": b'{"name": "\xff\xfe"}\n',
    "a byte order mark": b'\xef\xbb\xbf{"name": "a"}\n',
}


@pytest.fixture(scope="module")
def world(
    birds: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Kind], tuple[Path, Bits]]:
    """The place of a kind, made once, and what is read in a copy of it that nobody touched."""

    @functools.cache
    def made(make: Callable[[Path, Path], None]) -> Path:
        place = tmp_path_factory.mktemp(make.__name__)
        make(place, birds)
        return place

    @functools.cache
    def outcome_of(make: Callable[[Path, Path], None], use: Callable[[Path, Path], Bits]) -> Bits:
        place = tmp_path_factory.mktemp("undamaged") / "place"
        return use(shutil.copytree(made(make), place), birds)

    return lambda kind: (made(kind.make), outcome_of(kind.make, kind.use))


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def check_outcome(kind: Kind, path: Path, place: Path, birds: Path, wanted: Bits) -> None:
    try:
        actual = kind.use(place, birds)
    except ValueError as problem:
        assert path.name in str(problem) or "holds a run of another configuration" in str(problem)
        assert "\n" not in str(problem)
        assert not kind.heals, problem
    else:
        assert kind.heals, "it was read in silence"
        assert actual == wanted


@pytest.mark.parametrize("kind", with_slow(KINDS, *RETRAINED), ids=str)
def test_a_flipped_bit_in_a_file_that_is_read_back_is_never_silent(kind, world, birds, tmp_path):
    source, wanted = world(kind)
    content = kind.path(source).read_bytes()
    shares = (0.5,) if kind.heals else (0.0, 0.03, 0.5, 1.0)
    for number, share in enumerate(shares):
        place = Path(shutil.copytree(source, tmp_path / str(number)))
        path = kind.path(place)
        path.write_bytes(flipped(content, round(share * (8 * len(content) - 1))))
        check_outcome(kind, path, place, birds, wanted)


@pytest.mark.parametrize("message", FOREIGN)
@pytest.mark.parametrize("kind", TEXT, ids=str)
def test_foreign_json_where_one_of_ours_belongs_is_healed_or_one_line_with_its_name(
    kind, message, world, birds, tmp_path
):
    source, wanted = world(kind)
    place = Path(shutil.copytree(source, tmp_path / "place"))
    path = kind.path(place)
    path.write_bytes(FOREIGN[message])
    check_outcome(kind, path, place, birds, wanted)


def test_a_state_of_an_earlier_version_is_refused_and_without_it_training_gives_the_same_bits(
    world, birds, tmp_path
):
    [kind] = [kind for kind in persisted.HALF if kind.file.endswith("state.pt")]
    source, wanted = world(kind)
    place = Path(shutil.copytree(source, tmp_path / "place"))
    path = kind.path(place)
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    message = (
        f"{path} can't be read: it has no digest, so it is damaged or of an earlier version; delete"
        " it to train phase limited anew"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind.use(place, birds)
    path.unlink()
    assert kind.use(place, birds) == wanted


# The mechanism


def test_each_bit_of_a_sealed_file_counts(tmp_path):
    path = tmp_path / "value.json"
    value = {"class": "Häher", "drop": [0.1, None, True]}
    write_json(path, value)
    content = path.read_bytes()
    assert read_json(path) == value
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(Damaged, match=r"value\.json can't be read: "):
            read_json(path)


def test_each_bit_of_sealed_tensors_counts(tmp_path):
    from safetensors.numpy import load_file, save

    path = tmp_path / "some.safetensors"
    arrays = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.int64)}
    write_tensors(path, save(arrays), format="1", of="a test")
    assert {name: array.tolist() for name, array in load_file(path).items()} == {
        "a": [[1, 1], [1, 1]],
        "b": [0, 1, 2],
    }
    content = path.read_bytes()
    check(path)
    path.write_bytes(flipped(content, 4 * len(content)))
    assert not is_whole(path)
    for bit in range(8 * len(content)):
        assert not holds(path, flipped(content, bit))


def test_the_same_tensors_and_facts_are_the_same_bytes(tmp_path):
    from safetensors.numpy import save

    for name in ("one", "two"):
        write_tensors(
            tmp_path / name, save({"a": np.ones(3, np.float32)}), format="1", weights="w", third="t"
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_each_bit_of_lines_of_json_counts_and_so_does_each_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    records = [{"phase": "all", "epoch": epoch, "loss": 0.5} for epoch in (1, 2)]
    write_json_lines(path, records)
    assert read_json_lines(path) == records
    content = path.read_bytes()
    assert [json.loads(line)["epoch"] for line in content.splitlines()] == [1, 2]
    for bit in range(8 * len(content)):
        assert not holds(path, flipped(content, bit))
    for damaged in (
        content.splitlines(keepends=True)[0],
        content + b"{}\n",
        b"",
        flipped(content, 9),
    ):
        path.write_bytes(damaged)
        with pytest.raises(Damaged):
            read_json_lines(path)


def holds(path: Path, content: bytes) -> bool:
    try:
        return is_sealed(path, io.BytesIO(content))
    except Damaged:
        return False


def test_files_of_earlier_versions_are_read_without_a_seal_unless_it_is_asked_for(tmp_path):
    path = tmp_path / "old.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    with pytest.raises(
        Damaged, match="it has no digest, so it is damaged or of an earlier version"
    ):
        read_json(path, sealed=True)
    assert not is_sealed(path, io.BytesIO(b"torch"))


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        ("", dict, "it is empty"),
        ("[", dict, r"it is not JSON \(line 1, column 2\)"),
        ("[" * 100_000, dict, "it is nested too deeply"),
        ("[]", dict, "it must be a table, got a list"),
        ("null", {"a": str}, "it must be a table, got null"),
        ('{"b": 1}', {"a": str}, "it has no 'a'"),
        ('{"a": {"b": "x"}}', {"a": {"b": int}}, "'b' must be a whole number, got text"),
        ('{"a": [1, "x"]}', {"a": [int]}, "a value in 'a' must be a whole number, got text"),
        ('{"a": "x", "b": 1}', {...: str}, "'b' must be text, got a whole number"),
    ],
)
def test_what_is_wrong_with_a_file_of_json_is_said_in_plain_words(
    tmp_path, content, shape, message
):
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(Damaged, match=rf"^{path} can't be read: {message}$"):
        read_json(path, shape)
