"""The code of docs/python.md runs, from a first run to a loss of one's own."""

import re
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from tiny import SETTINGS, train

import dml_bench
from dml_bench.config.experiments import parse_value

PAGE = Path(dml_bench.__file__).parents[1] / "docs" / "python.md"
SMALL = {}
for setting in SETTINGS:
    key, _, value = setting.partition("=")
    SMALL[key] = parse_value(value, is_text=key == "unseen")


@pytest.fixture
def desk(birds, tmp_path, monkeypatch, cache_dir, plugins_removed) -> Path:
    """A folder with photos and a new class, in which a notebook is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DML_BENCH_CACHE", str(cache_dir))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    photos = sorted((birds / "images").glob("*/*.jpg"))
    (tmp_path / "photo.jpg").write_bytes(photos[0].read_bytes())
    (tmp_path / "photos").mkdir()
    for photo in photos[:2]:
        (tmp_path / "photos" / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "new_classes" / "pigeon").mkdir(parents=True)
    ImageOps.flip(Image.open(photos[-1])).save(tmp_path / "new_classes" / "pigeon" / "one.png")
    return tmp_path


def code() -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))


def run_notebook(source: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, "<notebook>", "exec"), names)
    return names


def assert_says_what_it_promises(names: dict[str, object]) -> None:
    run, own = names["run"], names["own"]
    queries = len(run.predictions)
    assert queries > 0
    vectors = run.embeddings("limited").query
    assert len(vectors) == len(run.neighbours["limited"].indices) == queries
    assert (vectors**2).sum(1) == pytest.approx(1, abs=1e-5)
    assert (
        run.metrics["precision_drop_unseen_classes"] == run.summary["precision_drop_unseen_classes"]
    )
    assert str(run.folder) in set(names["table"]["folder"])
    assert "first - second" in str(names["comparison"])
    assert names["enrolment"].new_classes == ("pigeon",)
    assert [prediction.path for prediction in names["predictions"]] == [Path("photo.jpg")]
    assert len(Path("answers.csv").read_text().splitlines()) == 1 + 2
    assert Path("model/embedder.pt2").is_file()
    assert own.experiment.loss.name == "MyLoss"
    assert own.folder != run.folder


@pytest.mark.slow
def test_the_page_runs_on_a_small_data_set(desk, birds, cache_dir):
    train(birds, cache_dir, Path("runs"), "name=other", "optimizer.lr=0.01")
    text = code()
    assert text.count("demo=True") == 2
    text = text.replace("demo=True", f"data_dir={str(birds)!r}, device='cpu'")
    text = text.replace('{"train.epochs": 3', f'{{**{SMALL!r}, "train.epochs": 3')
    assert_says_what_it_promises(run_notebook(text))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the demo's own start, then two runs of its size
def test_the_page_runs_as_it_is_written(desk):
    assert_says_what_it_promises(run_notebook(code()))
