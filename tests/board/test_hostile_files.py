"""Files of anybody that would end, stop or flood whoever verifies them: each is a refusal, and all
other submissions are checked."""

import hashlib
import lzma
import os
import shutil
import zlib
from pathlib import Path

import pytest
from forgery import only_answer_otherwise, say_otherwise
from tiny import dml_bench

from dml_bench.board.verify import VerifyRequest, verify
from dml_bench.runs import record_format

RECORD = "demo/stratified-last-10/EPSHN_cosine_resnet18_sgd_aug/seed-42.json"
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def record(tmp_path) -> Path:
    """A copy of a record of the repository, at its place."""
    path = tmp_path / "results" / RECORD
    path.parent.mkdir(parents=True)
    for suffix in (".json", record_format.ANSWERS_SUFFIX):
        shutil.copyfile((RESULTS / RECORD).with_suffix(suffix), path.with_suffix(suffix))
    return path


def refusal_of(path: Path) -> tuple[str, str]:
    """Name and text of the only finding."""
    (finding,) = verify(path, VerifyRequest(cache_dir=path.parent)).findings
    assert finding.verdict == "refused"
    return finding.name, finding.text


def test_facts_that_are_nested_deeply_are_a_refusal(record):
    def nest(content):
        nested: list = []
        for _ in range(900):
            nested = [nested]
        content.facts["summary"]["split"]["test_images"] = nested

    only_answer_otherwise(record, nest)
    verified = verify(record, VerifyRequest(cache_dir=record.parent))
    assert verified.is_refused
    assert "RecursionError" in verified.lines()[0]


def test_a_finding_is_one_line_of_some_letters(record, monkeypatch, capsys):
    """A text of megabytes took minutes to print, and one of two lines could say anything in the
    second."""

    def flood(content):
        dataset = content.facts["summary"]["dataset"]
        dataset["name"] = "demo\n::error::all is well\x1b[2J" + "A" * 1_000_000

    only_answer_otherwise(record, flood)
    assert dml_bench(monkeypatch, "verify", record) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert f"the answers give demo ::error::all is well\\x1b[2JA{'A' * 100}" in first
    assert len(first) < 1_200
    assert others[-1] == "1 checked: 1 refused, 0 for review"
    assert max(map(len, others)) < 1_200


def test_answers_that_want_gigabytes_to_be_unpacked_are_refused(record):
    answers = record_format.answers_file(record)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    packed = bytearray(lzma.compress(lzma.decompress(answers.read_bytes()), filters=filters))
    header = slice(12, 12 + 4 * (packed[12] + 1))  # of the first block, with its CRC32
    packed[packed.index(b"\x21\x01", header.start) + 2] = 40  # a dictionary of 4 GiB
    checked = zlib.crc32(packed[header.start : header.stop - 4])
    packed[header.stop - 4 : header.stop] = checked.to_bytes(4, "little")
    digest = hashlib.sha256(packed).hexdigest()
    say_otherwise(record, lambda said: said.update(answers_sha256=digest))
    answers.write_bytes(packed)
    assert refusal_of(record) == ("answers", "Memory usage limit exceeded")


def test_a_file_of_answers_that_is_too_large_is_not_read(record, monkeypatch):
    monkeypatch.setattr(record_format, "LARGEST_PACKED", 1_000)
    name, text = refusal_of(record)
    assert name == "size"
    assert text.startswith("seed-42.safetensors.xz must have at most 1,000 bytes, got ")


@pytest.mark.parametrize("suffix", [".json", record_format.ANSWERS_SUFFIX])
def test_a_pipe_is_not_waited_for(suffix, record):
    pipe = record.with_suffix(suffix)
    pipe.unlink()
    os.mkfifo(pipe)
    assert refusal_of(record) == ("damaged", f"{pipe} is no file: put the file in its place")


def test_facts_on_the_machine_by_which_others_reckon_are_numbers(record):
    """A suite says what its runs will cost by the cores of all records."""
    say_otherwise(record, lambda said: said["session"].update(threads="many"))
    name, text = refusal_of(record)
    assert (name, "session.threads" in text) == ("schema", True)
