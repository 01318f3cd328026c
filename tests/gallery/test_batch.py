"""Many photos looked up into one file: a stopped command goes on, a folder is watched, and the exit
code tells how many photos are unknown."""

import csv
import io
import json
import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from pyarrow import parquet
from steps import Heard, Steps
from tiny import dml_bench, refusal

import dml_bench as db
from dml_bench.cli.gallery import read_paths
from dml_bench.gallery import batch
from dml_bench.gallery.batch import AnswerJob, answer_file, answer_folder
from dml_bench.gallery.lookup import LookupOptions, LookupSettings, open_lookup


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def gallery(folder) -> db.Gallery:
    return db.Gallery(folder, device="cpu")


@pytest.fixture
def photos(birds, tmp_path) -> Path:
    """Twelve photos of birds, and one file that is none."""
    place = tmp_path / "photos"
    place.mkdir()
    for number, file in enumerate(sorted(birds.rglob("*.jpg"))[::5][:12]):
        shutil.copy(file, place / f"{number:02}.jpg")
    (place / "12-broken.jpg").write_bytes(b"no image")
    return place


@pytest.fixture
def parts_of_four(monkeypatch) -> None:
    monkeypatch.setattr(batch, "PART", 4)


def test_all_settings_of_a_look_up_can_be_handed_on_and_none_is_taken_on_trust(gallery, photos):
    assert set(LookupSettings.__annotations__) == {option.name for option in fields(LookupOptions)}
    with pytest.raises(ValueError, match="by must be photo, mean or classifier, got vote"):
        gallery.predict(photos, by="vote")
    with pytest.raises(ValueError, match="threshold must be a similarity, got nan: give a number"):
        gallery.predict(photos, threshold=float("nan"))


def test_a_look_up_without_a_file_says_how_far_it_is(folder, photos):
    steps = Steps()
    db.Gallery(folder, device="cpu", callback=steps).predict(photos, other=photos)
    assert steps.last == {"looking up others": (13, 13), "looking up": (13, 13)}


def test_an_index_that_is_built_says_how_far_it_is(folder, photos, tmp_path):
    steps = Steps()
    own = shutil.copytree(folder, tmp_path.joinpath(*folder.parts[-3:]))
    gallery = db.Gallery(own, device="cpu", callback=steps)
    count = len(gallery.file.read().entries)
    gallery.predict(photos, index="ivf")
    assert steps.last == {
        "training the index": (1, 1),
        "filling the index": (count, count),
        "choosing the cells to search": (1, 1),
        "measuring what the index misses": (1, 1),
        "looking up": (13, 13),
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_the_file_has_the_answers_of_predict_in_the_order_of_the_photos(
    gallery, photos, tmp_path, parts_of_four
):
    similarities = [answer.similarity for answer in gallery.predict(photos)]
    threshold = sorted(similarities)[2] + 1e-5
    expected = gallery.predict(photos, threshold=threshold)
    done = gallery.predict_to(photos, tmp_path / "answers.csv", threshold=threshold)
    rows = rows_of(tmp_path / "answers.csv")
    assert [Path(row["image"]) for row in rows] == sorted(photos.iterdir())
    for row, answer in zip(rows, expected, strict=False):
        assert row["answer"] == ("class" if answer.known else "unknown")
        assert row["class"] == (answer.class_name if answer.known else "")
        assert float(row["similarity"]) == pytest.approx(answer.similarity, abs=1e-5)
        assert row["nearest_image"] == answer.closest[0][0].path
    assert rows[12]["answer"] == "unreadable"
    assert rows[12]["reason"] == "not an image, or of a format that is not read"
    assert done.unknown == sum(not answer.known for answer in expected) > 0
    assert (done.answered + done.unknown, done.unreadable) == (12, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.csv", "photos"]


def test_a_command_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    gallery, photos, tmp_path, parts_of_four, monkeypatch
):
    gallery.predict_to(photos, tmp_path / "whole.json")
    looked_up: list[int] = []

    def stopping(progress_after: int):
        def progress(message: str, done: int, total: int) -> None:
            looked_up.append(done)
            if message == "looking up" and done >= progress_after:
                raise KeyboardInterrupt

        return progress

    monkeypatch.setattr(gallery.callback, "progress", stopping(8))
    with pytest.raises(KeyboardInterrupt):
        gallery.predict_to(photos, tmp_path / "answers.json")
    journal = tmp_path / "answers.json.part"
    with open(journal, "ab") as file:  # killed while it wrote
        file.write(b'{"path": "/half')
    monkeypatch.setattr(gallery.callback, "progress", lambda *numbers: looked_up.append(-1))
    done = gallery.predict_to(photos, tmp_path / "answers.json")
    assert done.resumed == 8
    assert looked_up == [4, 8, -1, -1]
    assert not journal.exists()
    stopped, undisturbed = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("answers", "whole")
    )
    assert [answer["closest"] for answer in stopped["answers"]] == [
        answer["closest"] for answer in undisturbed["answers"]
    ]
    assert stopped["unreadable"] == undisturbed["unreadable"]


def test_a_photo_that_changed_since_is_looked_up_again(gallery, photos, tmp_path):
    options = LookupOptions()
    lookup = open_lookup(gallery.file, options, "cpu")
    files = sorted(photos.iterdir())
    with answer_file(gallery.file, lookup, options, tmp_path / "a.csv") as answers:
        AnswerJob(lookup, answers, lambda done, total: None).run(files)
    Image.new("RGB", (30, 30), "red").save(files[3])
    with answer_file(gallery.file, lookup, options, tmp_path / "a.csv") as again:
        assert again.lacking(files) == [files[3]]


def test_a_photo_whose_permissions_were_mended_is_looked_up_again(gallery, photos, tmp_path):
    options = LookupOptions()
    lookup = open_lookup(gallery.file, options, "cpu")
    files = sorted(photos.iterdir())
    with answer_file(gallery.file, lookup, options, tmp_path / "a.csv") as answers:
        AnswerJob(lookup, answers, lambda done, total: None).run(files)
        assert answers.lacking(files) == []
        files[12].chmod(0o600)  # its size and the time of its content stay
        assert answers.lacking(files) == [files[12]]


def test_answers_under_another_limit_of_megapixels_are_not_gone_on_with(
    gallery, photos, tmp_path, monkeypatch
):
    options = LookupOptions()
    lookup = open_lookup(gallery.file, options, "cpu")
    with answer_file(gallery.file, lookup, options, tmp_path / "a.csv"):
        pass
    monkeypatch.setenv("DML_BENCH_MAX_MEGAPIXELS", "500")
    with (
        pytest.raises(ValueError, match="answers of another gallery, model or options"),
        answer_file(gallery.file, lookup, options, tmp_path / "a.csv"),
    ):
        pass


def test_two_commands_do_not_write_answers_to_one_file(gallery, photos, tmp_path):
    """The first that ends takes the journal away in which the other has its places."""
    options = LookupOptions()
    lookup = open_lookup(gallery.file, options, "cpu")
    out, files = tmp_path / "a.csv", sorted(photos.iterdir())
    with answer_file(gallery.file, lookup, options, out) as answers:
        job = AnswerJob(lookup, answers, lambda done, total: None)
        job.run(files[:4])
        with pytest.raises(ValueError, match="^another command writes .*a.csv: wait for it, or"):
            gallery.predict_to(photos, out)
        assert job.run(files).answered == 12
    assert [Path(row["image"]) for row in rows_of(out)] == files
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.csv.part", "photos"]


def test_answers_of_other_options_are_not_gone_on_with(gallery, photos, tmp_path):
    (tmp_path / "a.csv.part").write_text('{"identity": "another"}\n')
    with pytest.raises(ValueError, match="has answers of another gallery, model or options"):
        gallery.predict_to(photos, tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("out", "message"),
    [("a.txt", r"a\.txt: answers are written as \.csv"), ("there.csv", "exists already")],
)
def test_a_file_that_can_t_be_written_is_refused_before_photos_are_looked_up(
    gallery, photos, tmp_path, out, message
):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(ValueError, match=message):
        gallery.predict_to(photos, tmp_path / out)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_parquet_has_the_columns_of_csv(gallery, photos, tmp_path):
    gallery.predict_to(photos, tmp_path / "a.parquet")
    gallery.predict_to(photos, tmp_path / "a.csv")
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for row, texts in zip(table, rows_of(tmp_path / "a.csv"), strict=True):
        assert list(row) == list(texts)
        for name, value in row.items():
            assert texts[name] == ("" if value is None else str(value))


def test_a_name_that_is_no_text_is_escaped_and_not_enrolled(gallery, photos, tmp_path):
    odd = photos / os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(photos / "00.jpg", odd)
    files = [tmp_path / f"answers{suffix}" for suffix in batch.WRITERS]
    for file in files:
        assert gallery.predict_to(odd, file).answered == 1
    escaped = f"{photos}/caf\\udce9.jpg"
    assert rows_of(files[0])[0]["image"] == escaped
    assert json.loads(files[1].read_bytes())["answers"][0]["image"] == str(odd)
    assert parquet.read_table(files[2])["image"].to_pylist() == [escaped]
    assert escaped.encode() in gallery.predict(odd).as_json().encode()
    with pytest.raises(ValueError, match="not Unicode text on one line: 1 .*rename them"):
        gallery.enrol(tmp_path)


def test_a_watched_folder_answers_photos_once_they_are_whole_and_keeps_those_that_left(
    gallery, photos, tmp_path
):
    options = LookupOptions()
    lookup = open_lookup(gallery.file, options, "cpu")
    inbox = tmp_path / "watched"
    inbox.mkdir()
    files = sorted(photos.glob("0*.jpg"))
    seen: list[list[str]] = []

    def steps():
        yield shutil.copy(files[0], inbox / "first.jpg")
        (inbox / "second.jpg").write_bytes(files[1].read_bytes()[:200])  # still being written
        yield
        shutil.copy(files[1], inbox / "second.jpg")
        yield
        yield
        (inbox / "first.jpg").unlink()
        shutil.copy(files[2], inbox / "third.jpg")
        yield
        yield

    step = steps()

    def wait() -> bool:
        names = [Path(row["image"]).name for row in rows_of(tmp_path / "a.csv")]
        seen.append(names)
        return next(step, "end") != "end"

    said: list[str] = []
    with answer_file(gallery.file, lookup, options, tmp_path / "a.csv") as answers:
        job = AnswerJob(lookup, answers, lambda done, total: None)
        done = answer_folder(job, lambda: sorted(inbox.iterdir()), wait, said.append)
    assert seen[:3] == [[], [], ["first.jpg"]]
    assert seen[-1] == ["first.jpg", "second.jpg", "third.jpg"]
    assert done.answered == 3
    assert len(said) == 3
    assert answers.journal.exists()


def test_a_watched_folder_is_answered_by_the_gallery_as_it_is_now(
    folder, photos, tmp_path, monkeypatch
):
    heard = Heard()
    gallery = db.Gallery(folder, folder=tmp_path / "gallery", device="cpu", callback=heard)
    inbox, new = tmp_path / "inbox", tmp_path / "new"
    inbox.mkdir()
    (new / "newcomer").mkdir(parents=True)
    Image.new("RGB", (40, 40), "magenta").save(new / "newcomer" / "a.png")
    earlier = tmp_path / "earlier" / "first"
    earlier.mkdir(parents=True)
    Image.new("RGB", (40, 40), "green").save(earlier / "a.png")
    gallery.enrol(earlier.parent)

    def steps():
        yield shutil.copy(new / "newcomer" / "a.png", inbox / "before.png")
        yield
        yield gallery.enrol(new)
        yield shutil.copy(new / "newcomer" / "a.png", inbox / "after.png")
        yield

    step = steps()
    monkeypatch.setattr(
        "dml_bench.api.gallery.seconds_pass", lambda seconds: next(step, "end") != "end"
    )
    out = tmp_path / "a.csv"
    gallery.predict_to(inbox, out, watch_seconds=1)
    classes = {Path(row["image"]).name: row["class"] for row in rows_of(out)}
    assert classes["before.png"] != "newcomer"
    assert classes["after.png"] == "newcomer"
    (line,) = [text for text in heard.notes if "the gallery was changed" in text]
    assert "1 answer from before" in line
    monkeypatch.setattr("dml_bench.api.gallery.seconds_pass", lambda seconds: False)
    assert gallery.predict_to(inbox, out, watch_seconds=1).resumed == 2


def test_the_command_reads_paths_from_standard_input(folder, photos, tmp_path, monkeypatch, capsys):
    names = [str(photos / "00.jpg"), str(photos / "01.jpg")]
    for number, text in enumerate(("\n".join(names) + "\n", "\0".join(names) + "\0")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        out = tmp_path / f"{number}.csv"
        assert dml_bench(monkeypatch, "predict", folder, "-", "--out", out) == 0
        assert [row["image"] for row in rows_of(out)] == names
        assert f"{out}: 2 photos, 2 answered, 0 unknown (0.0%), 0 unreadable" in (
            capsys.readouterr().out
        )


def test_paths_on_standard_input_needn_t_be_text(monkeypatch):
    listed = b"a\xe4.jpg\0b\x0cc.jpg\0", b"a\xe4.jpg\nb\x0cc.jpg\n"
    for names in listed:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names), encoding="utf-8"))
        assert read_paths([Path("-")]) == [Path("a\udce4.jpg"), Path("b\x0cc.jpg")]


def test_the_exit_code_tells_how_many_photos_are_unknown(
    folder, photos, tmp_path, monkeypatch, capsys
):
    for name in ("00.jpg", "01.jpg"):  # a copy of a gallery image may have a similarity of just 1
        ImageOps.mirror(Image.open(photos / name)).save(photos / name)
    strict = ("--threshold", "1", "--max-unknown")
    typed = ("predict", folder, photos / "00.jpg", photos / "01.jpg")
    assert dml_bench(monkeypatch, *typed, *strict, "1") == 0
    assert dml_bench(monkeypatch, *typed, *strict, "0") == 3
    assert dml_bench(monkeypatch, *typed, *strict, "0", "--out", tmp_path / "a.csv") == 3
    broken = ("predict", folder, photos, "--max-unknown", "0.5", "--out", tmp_path / "b.csv")
    assert dml_bench(monkeypatch, *broken) == 1


def test_a_long_path_stays_on_one_line(folder, photos, tmp_path, monkeypatch, capsys):
    long = tmp_path / ("long-" * 30) / "photo.jpg"
    long.parent.mkdir()
    shutil.copy(photos / "00.jpg", long)
    assert dml_bench(monkeypatch, "predict", folder, long) == 0
    assert str(long) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("photo", "--watch", "1"), "--watch writes to a file: give --out answers.csv"),
        (("photo", "--out", "a.csv", "--json"), "--json does not go with --out"),
        (("photo", "--out", "a.csv", "--watch", "1"), "--watch looks at one folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(typed, message, folder, monkeypatch, capsys):
    assert message in refusal(monkeypatch, capsys, "predict", folder, *typed)
