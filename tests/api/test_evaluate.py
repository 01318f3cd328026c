"""Embeddings of any program: their numbers are those of other libraries and of the run that made
them, by whatever names and in whatever order they come, and PyTorch is not touched."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from steps import Steps

import dml_bench as db
from dml_bench.data.embeddings import read_embeddings, read_labels

CLASSES, PER_CLASS, DIM = 8, 12, 6
LABELS = np.repeat(np.arange(CLASSES), PER_CLASS)
NAMES = np.array(
    [f"{label}/{place:02}.jpg" for label in range(CLASSES) for place in range(PER_CLASS)]
)
IS_QUERY = np.tile(np.arange(PER_CLASS) % 3 == 0, CLASSES)


def clouds(spread: float, seed: int = 0) -> np.ndarray:
    """(images, dim) float32 unit vectors around a centre for each class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, DIM))
    vectors = centres[LABELS] + spread * rng.normal(size=(len(LABELS), DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.savez("all.npz", embeddings=clouds(0.6), paths=NAMES)
    np.savez("without.npz", embeddings=clouds(1.0), paths=NAMES)
    write_labels("labels.csv", split=True)
    return tmp_path


def write_labels(name: str, *, split: bool) -> None:
    heads, ends = ("path,class,split", ",{}") if split else ("path,class", "")
    lines = [heads]
    for path, label, is_query in zip(NAMES, LABELS, IS_QUERY, strict=True):
        lines.append(f"{path},c{label}" + ends.format("query" if is_query else "gallery"))
    Path(name).write_text("\n".join(lines))


def accuracy(report: db.EmbeddingsReport, way: str, group: str = "all", model: int = 0) -> float:
    result = list(report.results.values())[model]
    return result.as_table()["accuracy"][way][group]["estimate"]


def test_it_says_how_far_it_is(desk):
    steps = Steps()
    db.evaluate("all.npz", "without.npz", labels="labels.csv", unseen="last:2", callback=steps)
    queries = int(IS_QUERY.sum())
    assert steps.last == {
        "searching": (queries, queries),
        "enrolling images": (queries, queries),
        "enrolling class means": (20, 20),
        "searching without new classes": (queries, queries),
        "searching by the other model": (queries, queries),
    }


def macro(right: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def test_p_at_1_and_class_means_are_those_of_scikit_learn(desk):
    report = db.evaluate("all.npz", labels="labels.csv")
    vectors, gallery = clouds(0.6), ~IS_QUERY
    for way, rival in (
        ("nearest image (P@1)", KNeighborsClassifier(1)),
        ("vote of the 5 nearest", KNeighborsClassifier(5, weights="distance")),
    ):
        answers = rival.fit(vectors[gallery], LABELS[gallery]).predict(vectors[IS_QUERY])
        right = answers == LABELS[IS_QUERY]
        assert accuracy(report, way) == pytest.approx(macro(right, LABELS[IS_QUERY]))
    means = NearestCentroid().fit(vectors[gallery], LABELS[gallery]).centroids_
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    right = (vectors[IS_QUERY] @ means.T).argmax(1) == LABELS[IS_QUERY]
    assert accuracy(report, "nearest class mean") == pytest.approx(macro(right, LABELS[IS_QUERY]))


def test_enrolment_starts_with_no_photo_and_ends_with_the_p_at_1_of_all(desk):
    report = db.evaluate("all.npz", labels="labels.csv", unseen="c6,c7")
    curve = report.results["all.npz"].as_table()["enrolment"]["images"]
    assert curve["images_per_new_class"] == [0, 1, 2, 5, PER_CLASS - PER_CLASS // 3]
    assert curve["new_classes"][0] == 0
    for group, values in (("unseen", "new_classes"), ("seen", "old_classes")):
        assert curve[values][-1] == pytest.approx(accuracy(report, "nearest image (P@1)", group))


def test_two_models_give_the_drops_and_their_difference_with_intervals(desk):
    report = db.evaluate("all.npz", "without.npz", labels="labels.csv", unseen="last:2")
    drops = report.results["without.npz"].as_table()["drops"]
    way = "nearest image (P@1)"
    for group in ("seen", "unseen"):
        lost = accuracy(report, way, group, 0) - accuracy(report, way, group, 1)
        drop = drops[f"precision_drop_{group}_classes"]
        assert drop["estimate"] == pytest.approx(lost)
        assert drop["low"] < lost < drop["high"]
    cost = drops["cost_of_being_unseen"]["estimate"]
    assert cost == pytest.approx(
        drops["precision_drop_unseen_classes"]["estimate"]
        - drops["precision_drop_seen_classes"]["estimate"]
    )
    assert report.results["all.npz"].as_table()["drops"] == {}
    assert "cost of being unseen (other classes)" in str(report)


def test_a_run_s_own_embeddings_give_the_numbers_of_its_summary(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = db.load_run(trained("train.epochs=1").folder)
    parts = {"gallery": [], "query": []}
    for image in run.split:
        parts["query" if image.part == "test" else "gallery"].append(image)
    images = [*parts["gallery"], *parts["query"]]
    lines = ["path,class,split"]
    lines += [f"{image.path},{image.class_name},gallery" for image in parts["gallery"]]
    lines += [f"{image.path},{image.class_name},query" for image in parts["query"]]
    Path("labels.csv").write_text("\n".join(lines))
    for phase in ("all", "limited"):
        stored = run.embeddings(phase)
        vectors = np.concatenate([stored.vectors("gallery"), stored.vectors("query")])
        np.savez(f"{phase}.npz", embeddings=vectors, paths=[image.path for image in images])
    report = db.evaluate("all.npz", "limited.npz", labels="labels.csv", unseen="last:2")
    summary = run.summary
    for model, phase in enumerate(("all", "limited")):
        p_at_1 = summary["phases"][phase]["precision_at_1_macro"]
        assert accuracy(report, "nearest image (P@1)", model=model) == pytest.approx(p_at_1)
    drops = report.results["limited.npz"].as_table()["drops"]
    assert len(drops) == 5
    for name, drop in drops.items():
        assert drop["estimate"] == pytest.approx(summary[name])


def test_without_a_split_a_fifth_of_each_class_are_queries_and_the_page_says_what_that_means(desk):
    write_labels("plain.csv", split=False)
    text = " ".join(str(db.evaluate("all.npz", labels="plain.csv")).split())
    assert "random by class, 20% are queries: 20 queries in a gallery of 76" in text
    assert "these numbers are too high" in text
    given_split = str(db.evaluate("all.npz", labels="labels.csv"))
    assert "given by the table" in given_split
    assert "too high" not in given_split


def test_a_column_that_is_not_used_is_said(desk):
    """`split` with a value that is no part was passed over, and queries were drawn in silence."""

    class Notes(db.Callback):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def note(self, text: str) -> None:
            self.heard.append(text)

    text = Path("labels.csv").read_text().replace("query", "holdout")
    boxed = [f"{line},0,0,9,9" for line in text.splitlines()[1:]]
    Path("labels.csv").write_text("\n".join(["path,class,split,x0,y0,x1,y1", *boxed]))
    notes = Notes()
    report = db.evaluate("all.npz", labels="labels.csv", callback=notes)
    assert "random by class" in str(report)
    heard = " ".join(notes.heard)
    assert "column split of labels.csv is not used: 'holdout' is no part" in heard
    assert "are cut to" not in heard


class Listening(db.Callback):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


def test_embeddings_of_one_point_and_images_as_near_as_others_are_doubted(desk):
    same = np.tile(clouds(0.6)[:1], (len(LABELS), 1))
    np.savez("same.npz", embeddings=same, paths=NAMES)
    listening = Listening()
    report = db.evaluate("same.npz", labels="labels.csv", callback=listening)
    assert [line.partition(", ")[0] for line in listening.said] == [
        "same.npz: all embeddings are nearly one point",
        "same.npz: for 100.0% of the queries",
    ]
    assert set(report.results["same.npz"].doubts) == {
        "widest_angle_degrees",
        "queries_decided_by_order",
    }
    listening = Listening()
    report = db.evaluate("all.npz", labels="labels.csv", callback=listening)
    assert listening.said == []
    assert report.results["all.npz"].doubts == {}


def test_images_of_parts_that_have_no_use_are_counted(desk):
    lines = Path("labels.csv").read_text().splitlines()
    lines[2] = lines[2].replace("gallery", "valid")
    lines[3] = lines[3].replace("gallery", "catalogue")
    Path("labels.csv").write_text("\n".join(lines))
    listening = Listening()
    db.evaluate("all.npz", labels="labels.csv", callback=listening)
    assert listening.said == [
        "2 images of the part catalogue and valid of the table have no use here"
    ]


def test_names_put_any_order_right_and_without_names_the_rows_of_the_table_count(desk):
    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    order = np.random.default_rng(1).permutation(len(NAMES))
    np.savez("mixed.npz", vectors=3 * clouds(0.6)[order], files=NAMES[order])
    np.savez("plain.npz", clouds(0.6))
    for name in ("mixed.npz", "plain.npz"):
        np.testing.assert_allclose(read_embeddings(Path(name), table), expected, atol=1e-6)


def test_a_parquet_of_lists_or_of_columns_is_read_as_well(desk):
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    pandas.DataFrame({"path": NAMES, "embedding": list(clouds(0.6))}).to_parquet("lists.parquet")
    columns = pandas.DataFrame(clouds(0.6)).rename(columns=str)
    columns.assign(path=NAMES).to_parquet("columns.parquet")
    for name in ("lists.parquet", "columns.parquet"):
        np.testing.assert_allclose(read_embeddings(Path(name), table), expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e300, 1e25, 1e-22, 1e-300])
def test_vectors_of_any_length_are_brought_to_unit_length(desk, scale):
    """As "all 0 or not finite" they were refused, though float64 holds them."""
    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    lengths = np.where(np.arange(len(NAMES)) % 2, scale, 1.0)[:, None]
    np.savez("long.NPZ.npz", embeddings=clouds(0.6) * lengths, paths=NAMES)
    Path("long.NPZ.npz").rename("long.NPZ")
    np.testing.assert_allclose(read_embeddings(Path("long.NPZ"), table), expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_parquet_of_vectors_of_any_length_is_read_as_well(desk):
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    vectors = clouds(0.6).astype(np.float64) * 1e300
    pandas.DataFrame({"path": NAMES, "embedding": list(vectors)}).to_parquet("lists.PARQUET")
    columns = pandas.DataFrame(vectors).rename(columns=str)
    columns.assign(path=NAMES).to_parquet("columns.parquet")
    for name in ("lists.PARQUET", "columns.parquet"):
        np.testing.assert_allclose(read_embeddings(Path(name), table), expected, atol=1e-6)


def test_a_parquet_without_names_whose_row_numbers_show_another_order_is_refused(desk):
    """A shuffled or sorted frame was read as if its rows were the table's."""
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    frame = pandas.DataFrame({"embedding": list(clouds(0.6))})
    shuffled = frame.sample(frac=1, random_state=1)
    for numbers in (shuffled, shuffled.rename_axis("row")):
        numbers.to_parquet("shuffled.parquet")
        with pytest.raises(ValueError, match=r"numbered in another order, \d+ first: .*reset_inde"):
            read_embeddings(Path("shuffled.parquet"), table)
    half = len(NAMES) // 2
    pandas.concat([frame[:half], frame[half:].reset_index(drop=True)]).to_parquet("two.parquet")
    expected = clouds(0.6)[table.rows]
    np.testing.assert_allclose(read_embeddings(Path("two.parquet"), table), expected, atol=1e-6)


def test_whole_numbers_name_rows_where_the_table_s_names_are_numbers(desk):
    """Two files with `ids` in another order than the table's were read in the table's."""
    ids = 100 + np.arange(len(NAMES))
    lines = [f"{number},c{label}" for number, label in zip(ids, LABELS, strict=True)]
    Path("numbered.csv").write_text("\n".join(["id,class", *lines]))
    table = read_labels(Path("numbered.csv"))
    order = np.random.default_rng(1).permutation(len(NAMES))
    np.savez("numbered.npz", embeddings=clouds(0.6)[order], ids=ids[order])
    expected = clouds(0.6)[table.rows]
    np.testing.assert_allclose(read_embeddings(Path("numbered.npz"), table), expected, atol=1e-6)
    np.savez("others.npz", embeddings=clouds(0.6), ids=ids + 1)
    with pytest.raises(ValueError, match=r"no embedding of 1 of the 96 images .* e\.g\. 100"):
        read_embeddings(Path("others.npz"), table)
    by_name = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), by_name)
    np.savez("both.npz", embeddings=clouds(0.6)[order], ids=ids, filename=NAMES[order])
    np.testing.assert_allclose(read_embeddings(Path("both.npz"), by_name), expected, atol=1e-6)


def test_classes_beside_the_vectors_name_no_row(desk):
    table = read_labels(Path("labels.csv"))
    np.savez("classes.npz", embeddings=clouds(0.6), labels=np.char.add("c", LABELS.astype(str)))
    expected = clouds(0.6)[table.rows]
    np.testing.assert_allclose(read_embeddings(Path("classes.npz"), table), expected, atol=1e-6)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
@pytest.mark.parametrize("classes", [LABELS, np.array([f"c{label}" for label in LABELS])])
def test_rows_without_names_whose_classes_show_another_order_are_refused(desk, ending, classes):
    import pandas

    def save(name: str, order: np.ndarray) -> Path:
        vectors, labels = clouds(0.6)[order], classes[order]
        if ending == "npz":
            np.savez(name, embeddings=vectors, labels=labels)
        else:
            pandas.DataFrame({"embedding": list(vectors), "labels": labels}).to_parquet(name)
        return Path(name)

    table = read_labels(Path("labels.csv"))
    in_order = np.arange(len(LABELS))
    expected = read_embeddings(Path("all.npz"), table)
    assert np.array_equal(read_embeddings(save(f"a.{ending}", in_order), table), expected)
    with pytest.raises(ValueError, match="has no names, and its classes are not those of the rows"):
        read_embeddings(save(f"b.{ending}", np.roll(in_order, 1)), table)


def test_classes_without_names_of_which_two_are_swapped_are_refused(desk):
    names = np.array([f"c{label}" for label in LABELS])
    np.savez("back.npz", embeddings=clouds(0.6)[::-1], classname=names[::-1])
    with pytest.raises(ValueError, match="has no names, and its classes are not those of the rows"):
        db.evaluate("back.npz", labels="labels.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (slice(1, None), "must have one name for each of its 95 embeddings, got 96"),
        (slice(0, 0), "holds no embedding"),
    ],
)
def test_names_and_vectors_of_other_numbers_are_refused(desk, rows, message):
    np.savez("some.npz", embeddings=clouds(0.6)[rows], paths=NAMES)
    with pytest.raises(ValueError, match=message):
        db.evaluate("some.npz", labels="labels.csv")
    np.savez("more.npz", embeddings=np.repeat(clouds(0.6), 2, axis=0), paths=NAMES)
    with pytest.raises(ValueError, match="one name for each of its 192 embeddings, got 96"):
        db.evaluate("more.npz", labels="labels.csv")


def test_a_column_that_is_no_dimension_is_not_read_as_one(desk):
    """Labels among the columns of numbers answered for the vectors."""
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    frame = pandas.DataFrame(clouds(0.6)).rename(columns="f{}".format).assign(path=NAMES)
    frame.assign(label=LABELS).to_parquet("labelled.parquet")
    labelled = read_embeddings(Path("labelled.parquet"), table)
    np.testing.assert_allclose(labelled, expected, atol=1e-6)
    frame.assign(sharpness=0.5).to_parquet("beside.parquet")
    with pytest.raises(ValueError, match=r"no dimensions by their names \(sharpness\).* e\.g\. f0"):
        read_embeddings(Path("beside.parquet"), table)
    frame[["f0", "f1", "path"]].rename(columns={"f0": "x", "f1": "y"}).to_parquet("xy.parquet")
    assert read_embeddings(Path("xy.parquet"), table).shape == (len(NAMES), 2)


def test_names_in_the_index_of_a_parquet_are_names(desk):
    """As pandas writes a table that is indexed by its names; its rows were read as the table's."""
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    expected = read_embeddings(Path("all.npz"), table)
    order = np.random.default_rng(1).permutation(len(NAMES))
    frame = pandas.DataFrame(clouds(0.6)).rename(columns=str)
    for name in ("path", None):
        frame.set_index(pandas.Index(NAMES, name=name)).iloc[order].to_parquet("indexed.parquet")
        np.testing.assert_allclose(
            read_embeddings(Path("indexed.parquet"), table), expected, atol=1e-6
        )
    frame.assign(path=NAMES).set_index("path", drop=False).iloc[order].to_parquet("both.parquet")
    np.testing.assert_allclose(read_embeddings(Path("both.parquet"), table), expected, atol=1e-6)
    in_order = frame.iloc[order].set_index(order)
    in_order.sort_index(ascending=False).iloc[::-1].to_parquet("numbered.parquet")
    numbered = read_embeddings(Path("numbered.parquet"), table)
    np.testing.assert_allclose(numbered, clouds(0.6)[table.rows], atol=1e-6)


def test_rows_of_a_parquet_that_lack_something_are_refused_in_a_line(desk):
    pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
    import pandas

    table = read_labels(Path("labels.csv"))
    lists = clouds(0.6).tolist()
    for row in (None, lists[0][:2]):
        frame = pandas.DataFrame({"path": NAMES, "embedding": [row, *lists[1:]]})
        frame.to_parquet("ragged.parquet")
        with pytest.raises(ValueError, match=r"embedding of ragged\.parquet must have a list of"):
            read_embeddings(Path("ragged.parquet"), table)
    unnamed = pandas.DataFrame({"path": [None, None, *NAMES[2:]], "embedding": lists})
    unnamed.to_parquet("unnamed.parquet")
    with pytest.raises(ValueError, match=r"embeddings of unnamed\.parquet with the same name"):
        read_embeddings(Path("unnamed.parquet"), table)


def test_a_damaged_npz_is_refused_in_a_line(desk):
    table = read_labels(Path("labels.csv"))
    np.savez_compressed("damaged.npz", embeddings=clouds(0.6))
    intact = Path("damaged.npz").read_bytes()
    for place in (70, len(intact) // 2, intact.index(b"PK\x01\x02") + 6):
        Path("damaged.npz").write_bytes(intact[:place] + b"\xff\x00\xff" + intact[place + 3 :])
        with pytest.raises(ValueError, match=r"damaged\.npz can't be read") as problem:
            read_embeddings(Path("damaged.npz"), table)
        assert "\n" not in str(problem.value)
    np.save("one.npy", clouds(0.6))
    Path("one.npy").rename("one.npz")
    with pytest.raises(ValueError, match="it holds one array, as a .npy does"):
        read_embeddings(Path("one.npz"), table)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": clouds(1)[:5]}, "one embedding for each of the 96 rows .* got 5: save"),
        (
            {"embeddings": clouds(1)[1:], "paths": NAMES[1:]},
            r"no embedding of 1 of the 96 images of labels\.csv, e\.g\. 0/00\.jpg",
        ),
        ({"embeddings": clouds(1) * (LABELS > 0)[:, None]}, "12 embeddings that are all 0 or not"),
        ({"a": clouds(1), "b": clouds(1)}, "2 2-D arrays of numbers: a, b; .* called embeddings"),
        ({"embeddings": clouds(1), "paths": NAMES.astype(object)}, r"paths\.astype\(str\)"),
    ],
)
def test_what_can_t_be_used_is_one_line_that_says_what_to_do(desk, arrays, message):
    np.savez("wrong.npz", **arrays)
    with pytest.raises(ValueError, match=message) as problem:
        db.evaluate("wrong.npz", labels="labels.csv")
    assert "\n" not in str(problem.value)


def test_a_table_that_is_not_there_is_named_by_the_option_that_evaluate_has(desk):
    """It named the option `table`, which experiments have."""
    for place in ("nowhere.csv", "."):
        with pytest.raises(ValueError, match=f"^{place} does not exist: name a .* --labels"):
            db.evaluate("all.npz", labels=place)


def test_two_models_need_the_classes_that_the_second_was_not_trained_on(desk):
    with pytest.raises(ValueError, match="--unseen last:20"):
        db.evaluate("all.npz", "without.npz", labels="labels.csv")


def test_two_files_of_one_name_in_two_folders_are_two_models(desk):
    Path("other").mkdir()
    Path("without.npz").rename("other/all.npz")
    expected = [accuracy(db.evaluate("all.npz", labels="labels.csv"), "nearest class mean")]
    expected.append(accuracy(db.evaluate("other/all.npz", labels="labels.csv"), "MAP@R"))
    for pair in (("all.npz", "other/all.npz"), ("other/all.npz", "all.npz")):
        report = db.evaluate(*pair, labels="labels.csv", unseen="last:2")
        assert set(report.results) == {"all.npz", "other/all.npz"}
        place = pair.index("all.npz")
        assert accuracy(report, "nearest class mean", model=place) == expected[0]
        assert accuracy(report, "MAP@R", model=1 - place) == expected[1]
    with pytest.raises(ValueError, match="both models are other/../all.npz: name the file"):
        db.evaluate("all.npz", "other/../all.npz", labels="labels.csv", unseen="last:2")


def test_the_command_prints_and_writes_the_report_without_pytorch(desk):
    listing = (
        "import sys; from dml_bench.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    options = ["all.npz", "without.npz", "--labels", "labels.csv", "--unseen", "last:2"]
    done = subprocess.run(
        [sys.executable, "-c", listing, "evaluate", *options, "--json", "--out", "page"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split()[-1] == "False"
    assert json.loads(done.stdout).keys() == {"all.npz", "without.npz"}
    page = Path("page/report.md").read_text()
    assert "how many photos does a new class need?" in page
    assert "cost of being unseen" in Path("page/index.html").read_text()


def test_queries_scatter_as_cosine_distances_say_and_hubs_are_counted(desk):
    report = db.evaluate("all.npz", labels="labels.csv", unseen="last:2")
    table = report.results["all.npz"].as_table()
    vectors = clouds(0.6)
    for group, classes in (("seen", range(6)), ("unseen", range(6, 8))):
        distances = []
        for label in classes:
            of_class = np.flatnonzero(np.equal(LABELS, label))
            queries = vectors[of_class[IS_QUERY[of_class]]]
            gallery = vectors[of_class[~IS_QUERY[of_class]]]
            distances.append(1 - (queries @ gallery.T).mean())
        mean = table["scatter"][group]["test_to_train"]
        assert mean["estimate"] == pytest.approx(np.mean(distances), abs=1e-6)
        assert mean["low"] < mean["estimate"] < mean["high"]
    assert 0 <= table["hubness"]["never"] < 1
    text = str(report)
    assert "how far do queries scatter against the gallery?" in text
    assert f"Hubness {table['hubness']['skewness']:.1f}: the skewness" in text
