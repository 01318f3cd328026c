"""Submissions as an accident, or a forger who knows the format, would write them: sealed, canonical
and consistent in whatever the test doesn't spoil."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.board.checks import measured_drops, measured_of_phases
from dml_bench.config import load
from dml_bench.runs import record_format
from dml_bench.runs.record import record_path
from dml_bench.runs.record_description import description_of
from dml_bench.runs.record_format import Content
from dml_bench.runs.run import RecordedRun

Description = dict[str, Any]


def read(path: Path) -> tuple[Description, Content]:
    """Both files of a record."""
    description = record_format.read_description(path)
    return description, record_format.read_content(path, description)


def say_otherwise(path: Path, change: Callable[[Description], None]) -> None:
    """The same answers beside another JSON, sealed as any."""
    description, _ = read(path)
    change(description)
    answers = description.pop("answers_sha256")
    del description["record_version"]
    record_format.write_description(path, description, answers)


def only_answer_otherwise(path: Path, change: Callable[[Content], None]) -> None:
    """Other answers beside the JSON as it was."""
    description, content = read(path)
    change(content)
    del description["record_version"], description["answers_sha256"]
    record_format.write_content(path, description, content)


def answer_otherwise(path: Path, change: Callable[[Content], None], **said: Any) -> None:
    """Other answers, and a JSON whose every number is measured of them; so is every number of a
    summary that `forget_the_summary` emptied."""
    before, content = read(path)
    change(content)
    run = RecordedRun(
        path,
        load(content.facts["experiment"]),
        content.facts["summary"],
        content=content,
        description=before,
    )
    if not run.summary.get("phases", True):
        tell_the_summary(run)
    description = description_of(run, run, before["submitted_by"])
    record_format.write_content(path, description | said, content)


def forget_the_summary(content: Content) -> None:
    """Leave no number of the answers as they were."""
    summary = content.facts["summary"]
    summary["phases"] = {}
    for name in [name for name in summary if name.startswith(("cost_of", "precision_drop"))]:
        del summary[name]


def tell_the_summary(run: RecordedRun) -> None:
    """Say what the answers give, as a forger would who thinks of the summary too."""
    for phase, numbers in measured_of_phases(run).items():
        wanted = {name: value for name, value in numbers.items() if name.startswith("precision_at")}
        run.summary["phases"][phase] = wanted
    run.summary.update(measured_drops(run))


def hand_in(path: Path, by: str) -> None:
    """The record as one that somebody handed in: with a name, and digests of images, of which none
    is both a query and in the gallery."""

    def add_digests(content: Content) -> None:
        queries = len(content.arrays["query_labels"])
        gallery = int(content.arrays["gallery_counts"].sum(dtype=int))
        digests = np.arange(queries + gallery, dtype=np.uint32)
        content.arrays["query_images"] = digests[:queries]
        content.arrays["gallery_images"] = digests[queries:]

    answer_otherwise(path, add_digests, submitted_by=by)


def row_of_its_own(
    record: Path,
    results: Path,
    name: str,
    by: str,
    change: Callable[[Content], None] = lambda content: None,
    **settings: Any,
) -> Path:
    """A record as a row of another name that somebody handed in, at its place below `results`, with
    other answers or other settings; consistent in all that its answers give."""
    before, content = read(record)
    configuration = content.facts["experiment"]
    configuration["name"] = name
    for key, value in settings.items():
        section, _, option = key.rpartition("__")
        (configuration[section] if section else configuration)[option] = value
    content.facts["summary"]["seed"] = configuration["seed"]
    forget_the_summary(content)
    change(content)
    experiment = load(configuration)
    path = record_path(results, experiment, content.facts["summary"]["dataset"]["name"])
    run = RecordedRun(
        path, experiment, content.facts["summary"], content=content, description=before
    )
    tell_the_summary(run)
    record_format.write_content(path, description_of(run, run, by), content)
    hand_in(path, by)
    return path


def answers_of_its_own(content: Content) -> None:
    """Other answers than those of any row: some right ones are wrong, and the other way round."""
    for name, array in content.arrays.items():
        if name.endswith(".nearest"):
            expected = content.arrays["query_labels"].astype(np.int64)
            nearest = record_format.decoded_classes(array, expected)
            nearest[::7] = np.roll(expected, 11)[::7]
            nearest[3::7] = expected[3::7]
            content.arrays[name] = record_format.encoded_classes(nearest, expected)
