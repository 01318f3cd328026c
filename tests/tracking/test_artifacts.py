"""What W&B gets of a finished run besides numbers, read back from what was logged offline; and
sending it, which needs a key."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import refusal, train
from wandb_records import of_type, read_back

from dml_bench.runs.arrays import read_arrays
from dml_bench.runs.run import read_folder
from dml_bench.tracking import artifacts, wandb_mirror
from dml_bench.tracking.wandb_mirror import NotSent, mirror_in_wandb


@pytest.fixture(scope="module")
def run(copy_of_trained) -> Path:
    return copy_of_trained("train.epochs=1")


def logged(folder: Path, home: Path) -> dict[str, Any]:
    """The last value of every key in the history of the run's only W&B folder."""
    (mirrored,) = (folder / "wandb").glob("offline-run-*")
    items: dict[str, Any] = {}
    for row in of_type(read_back(mirrored, home), "history"):
        items |= row["item"]
    return items | {"": mirrored}


def test_figures_evidence_explanations_and_embeddings_reach_wandb_as_they_are(
    run: Path, tmp_path: Path
):
    warnings: list[str] = []
    names = artifacts.show(run, "offline", evidence=2, explained=1, warn=warnings.append)
    assert warnings == []
    assert {
        "evidence/1",
        "evidence/2",
        "explained/1",
        "all_embeddings",
        "limited_embeddings",
    } <= set(names)
    assert sum(name.startswith("figures/") for name in names) >= 6
    items = logged(run, tmp_path)
    mirrored = items.pop("")
    assert mirrored.name.endswith(json.loads((run / "environment.json").read_text())["wandb_id"])
    for name in names:
        kind = "table-file" if name.endswith("_embeddings") else "image-file"
        assert items[f"{name}._type"] == kind
        assert (mirrored / "files" / items[f"{name}.path"]).is_file()
    with Image.open(mirrored / "files" / items["evidence/1.path"]) as picture:
        assert picture.size == (6 + 11 * 174, 50 + 2 * 232)
    table = json.loads((mirrored / "files" / items["all_embeddings.path"]).read_text())
    stored = read_arrays(run / "all" / "embeddings.safetensors")
    vectors = np.array([row[4:] for row in table["data"]])
    assert vectors == pytest.approx(np.concatenate([stored["gallery"], stored["query"]]), abs=1e-6)
    assert [row[2] for row in table["data"]] == ["gallery"] * len(stored["gallery"]) + [
        "query"
    ] * len(stored["query"])


def test_what_does_not_reach_wandb_is_an_error_and_no_list_of_what_was_logged(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    def refuse(*_: object) -> None:
        raise wandb_mirror.NotLoggedIn("no API key; run `wandb login`, or use `--wandb offline`")

    monkeypatch.setattr(wandb_mirror, "connect", refuse)
    options = ("--wandb", "online", "--evidence", "1", "--explained", "0")
    line = refusal(monkeypatch, capsys, "wandb", "log", run, *options)
    assert line.endswith(
        "not all of it reached W&B: no API key; run `wandb login`, or use `--wandb offline`"
    )
    assert "the run goes on" not in line


def test_the_table_of_embeddings_says_which_classes_the_phase_never_saw(run: Path):
    finished = read_folder(run)

    def unseen(phase: str) -> set[str]:
        table = artifacts.embeddings_table(finished, phase)
        return {row[1] for row in table.rows if row[3]}

    assert unseen("all") == set()
    assert unseen("limited") == set(finished.summary["unseen_classes"])


def test_what_was_not_logged_offline_can_t_be_sent(run: Path, tmp_path: Path):
    with pytest.raises(
        NotSent,
        match=(
            "has nothing logged offline: it ran with --wandb online or disabled; `dml-bench wandb"
            " log` adds"
        ),
    ):
        wandb_mirror.sync(tmp_path)


def test_without_a_key_the_next_step_is_one_line(run: Path, tmp_path: Path):
    (tmp_path / "copy" / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True)
    script = (
        "from pathlib import Path; from dml_bench.tracking.wandb_mirror import sync;"
        f" sync(Path({str(tmp_path / 'copy')!r}))"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    ).stderr
    assert (
        said.strip()
        .splitlines()[-1]
        .endswith("NotSent: no W&B API key: run `wandb login`, or set WANDB_API_KEY")
    )


@pytest.mark.parametrize("server", ["", "https://metrics.example.org"])
def test_a_key_is_known_wherever_a_login_left_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    assert not wandb_mirror.has_key()
    import wandb

    machine = (server or wandb.Settings().base_url).removeprefix("https://")
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {machine} login user password {'0' * 40}\n")
    netrc.chmod(0o600)
    assert wandb_mirror.has_key()


def test_a_server_out_of_reach_is_one_line_and_loses_nothing(
    birds, cache_dir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = train(
        birds, cache_dir, tmp_path, "train.epochs=1", mirror=mirror_in_wandb("offline")
    ).folder
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (logged,) = folder.rglob("*.wandb")
    before = (
        logged.read_bytes()
    )  # perhaps not all of it yet: W&B's own process writes on for a moment
    with pytest.raises(
        NotSent, match="was not sent within 5 s: is the network there\\? Nothing is lost; try again"
    ) as caught:
        wandb_mirror.sync(folder, timeout_seconds=5)
    assert "\n" not in str(caught.value)
    assert before
    assert logged.read_bytes().startswith(before)
