"""Nothing is guessed or dropped in silence when data are read: parts, columns, files of any ending,
names in any form."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from dml_bench.config import Component
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.image_files import is_image
from dml_bench.data.split import make_split, unseen_classes
from dml_bench.registry import UnknownName, datasets
from dml_bench.registry.names import label_named

NFC, NFD = (unicodedata.normalize(form, "Café crème") for form in ("NFC", "NFD"))


def pictures(root: Path, *paths: str, form: str = "JPEG") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(root / path, format=form)


def read(name: str, data_dir: Path, *, tolerant: bool = False, **options: str) -> Dataset:
    return open_dataset(
        Component(name, datasets[name].resolve(options, "data.dataset")),
        data_dir,
        data_dir / "cache",
        tolerant=tolerant,
    )


# What is an image


@pytest.mark.parametrize("ending", ["", ".jfif", ".jpe", ".jpg_large", ".jpg!d", ".JPG~", ".dat"])
def test_a_jpeg_is_an_image_whatever_its_name_ends_in(tmp_path, ending):
    pictures(tmp_path, f"a/1{ending}", "b/1.jpg")
    assert read("folder", tmp_path).paths == (f"a/1{ending}", "b/1.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM 3 series",
        b"P1 is a pixel",
        b"{}",
        b"\x89HDF\r\n\x1a\n" + bytes(64),
        b"GRIB" + bytes(64),
    ],
)
def test_a_file_that_only_looks_like_an_image_is_left_out_counted_and_named(tmp_path, content):
    pictures(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b" / "labels.xml").write_bytes(content)
    dataset = read("folder", tmp_path)
    assert dataset.paths == ("a/1.jpg", "b/1.jpg")
    assert dataset.notes == (
        f"{tmp_path}: 1 file is no image and is left out (first: b/labels.xml)",
    )


def test_an_empty_class_is_named_with_what_its_folder_holds(tmp_path):
    pictures(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.mp4").write_bytes(b"moving")
    with pytest.raises(
        ValueError,
        match=(
            r"classes without images .* \(first: c\); .*1 file is no image and is left out \(first:"
            r" c/1.mp4\)$"
        ),
    ):
        read("folder", tmp_path)


def test_a_damaged_image_with_an_image_s_ending_stays_in_and_a_raw_photograph_is_refused(tmp_path):
    (tmp_path / "broken.jfif").write_bytes(b"\xff\xd8")
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    names = ("broken.jfif", "pipe.jpg", "nowhere.jpg")
    assert [is_image(tmp_path / name) for name in names] == [True, False, True]
    pictures(tmp_path, "data/a/1.jpg", "data/b/1.jpg", "data/b/2.dng")
    with pytest.raises(ValueError, match=r"of a format that is not read: 1 \(first: .*2.dng\)"):
        read("folder", tmp_path / "data")


# Parts


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("training", "validation", "testing"), {"train", "valid", "test"}),
        (("Train", "dev", "TEST"), {"train", "valid", "test"}),
        (("query", "gallery"), {"query", "gallery"}),
        (("train", "query", "gallery"), {"train", "query", "gallery"}),
    ],
)
def test_parts_are_known_by_the_names_that_people_give_them(tmp_path, names, parts):
    pictures(tmp_path, *(f"{name}/{kind}/1.jpg" for name in names for kind in ("ant", "bee")))
    dataset = read("folder", tmp_path)
    assert dataset.class_names == ("ant", "bee")
    assert set(dataset.parts or ()) == parts


@pytest.mark.parametrize(
    "tops", [("train", "extra"), ("fold1", "fold2", "fold3"), ("training", "holdout")]
)
def test_where_folders_may_be_classes_or_parts_one_line_asks_and_an_option_answers(tmp_path, tops):
    pictures(tmp_path, *(f"{top}/{kind}/1.jpg" for top in tops for kind in ("ant", "bee")))
    with pytest.raises(
        ValueError, match=r"--set data\.dataset\.parts=.*:train.* --set data\.dataset\.parts=none"
    ) as refusal:
        read("folder", tmp_path)
    assert "\n" not in str(refusal.value)
    assert read("folder", tmp_path, parts="none").class_names == tuple(sorted(tops))
    answered = read(
        "folder",
        tmp_path,
        parts=",".join(f"{top}:{'test' if top == tops[-1] else 'train'}" for top in tops),
    )
    assert (answered.class_names, set(answered.parts or ())) == (("ant", "bee"), {"train", "test"})


def test_images_beside_the_parts_that_were_named_are_left_out_and_said(tmp_path):
    pictures(
        tmp_path, "one/ant/1.jpg", "one/bee/1.jpg", "two/ant/1.jpg", "two/bee/1.jpg", "spare/3.jpg"
    )
    dataset = read("folder", tmp_path, parts="one:train,two:test")
    assert len(dataset) == 4
    assert dataset.notes == (
        f"{tmp_path}: data.dataset.parts does not name spare, so the images in there are left out",
    )
    with pytest.raises(
        ValueError, match=r"names the folder 'tow', which is not there \(did you mean two\?\)"
    ):
        read("folder", tmp_path, parts="one:train,tow:test")
    with pytest.raises(ValueError, match="must be none or FOLDER:PART,FOLDER:PART, got 'two:rest'"):
        read("folder", tmp_path, parts="one:train,two:rest")


def test_a_part_whose_single_folder_no_training_image_lies_in_is_asked_about(tmp_path):
    """As tiny-imagenet is unpacked: test/images/ is no class called images."""
    pictures(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "test/images/1.jpg")
    with pytest.raises(ValueError, match=r"is the only folder of test \(images\) a class\?"):
        read("folder", tmp_path)


@pytest.mark.parametrize("inner", [("images",), ("train", "test")])
def test_folders_of_one_name_or_of_parts_inside_of_classes_are_no_question(tmp_path, inner):
    pictures(tmp_path, *(f"{kind}/{name}/1.jpg" for kind in ("ant", "bee") for name in inner))
    dataset = read("folder", tmp_path)
    assert dataset.class_names == ("ant", "bee")
    assert [note.partition(" in each")[0] for note in dataset.notes] == [
        "the folders test, train"
    ] * (inner == ("train", "test"))


# Names


def test_a_class_is_one_class_however_its_accents_are_stored(tmp_path):
    pictures(
        tmp_path, f"train/{NFC}/1.jpg", f"test/{NFD}/2.jpg", "train/tea/1.jpg", "test/tea/2.jpg"
    )
    dataset = read("folder", tmp_path)
    assert dataset.class_names == (NFC, "tea")
    assert sorted(dataset.labels.tolist()) == [0, 0, 1, 1]
    assert len(make_split(dataset, method="given", test_fraction=0.2, seed=1).train) == 2


def test_a_class_is_shown_as_it_was_given_and_found_in_either_form(tmp_path):
    pictures(tmp_path, f"{NFD}/1.jpg", "milk/1.jpg", "tea/1.jpg")
    dataset = read("folder", tmp_path)
    assert dataset.class_names[0] == NFD
    assert unseen_classes(NFC, dataset) == (0,)
    assert label_named(NFC, {7: f"007.{NFD}"}) == 7
    with pytest.raises(UnknownName, match="no class 'Cafe creme'"):
        label_named("Cafe creme", {7: NFD})


@pytest.mark.parametrize(("on_disk", "listed"), [(NFC, NFD), (NFD, NFC)])
def test_files_of_a_table_are_found_however_their_accents_are_stored(tmp_path, on_disk, listed):
    pictures(tmp_path, f"images/{on_disk}/1.jpg", "images/2.jpg")
    (tmp_path / "train.csv").write_text(
        f"path,label\n{listed}/1.jpg,{NFC}\n2.jpg,tea\n", encoding="utf-8"
    )
    assert f"images/{on_disk}/1.jpg" in read("csv", tmp_path).paths


def test_names_that_differ_only_in_case_or_zeros_are_pointed_out(tmp_path):
    pictures(tmp_path, "Ant/1.jpg", "ant/1.jpg", "1/1.jpg", "01/1.jpg", "bee/1.jpg")
    assert (
        read("folder", tmp_path)
        .notes[0]
        .startswith("class names that differ only in case or in zeros: 2 (first: 01 and 1)")
    )


def test_names_that_differ_only_in_what_nobody_sees_are_pointed_out(tmp_path):
    pictures(tmp_path, "Ant/1.jpg", "Ant /1.jpg", "a bee/1.jpg", "a\u00a0bee/1.jpg")
    pictures(tmp_path, "wasp/1.jpg", "wasp\u200b/1.jpg", "moth/1.jpg")
    assert read("folder", tmp_path).notes == (
        "class names that differ only in blanks, or in characters that look the same: 3 (first:"
        " 'Ant' and 'Ant '); if they are meant as one, write them in one way",
    )


def test_labels_that_may_be_one_are_pointed_out_where_an_image_has_several(tmp_path):
    pictures(tmp_path, *(f"images/{row}.jpg" for row in range(4)))
    table = "path,label\n0.jpg,Beach;dog\n1.jpg,beach;cat\n2.jpg,dog\n3.jpg,cat\n"
    (tmp_path / "train.csv").write_text(table)
    assert read("csv", tmp_path, separator=";").notes == (
        "labels that differ only in case or in zeros: 1 (first: Beach and beach); if they are meant"
        " as one, write them in one way",
    )


# Tables


@pytest.mark.parametrize(
    "notes", [("ok", '"5 inch', "ok", '"6 inch', "ok"), ("ok", "ok", "ok", "ok", '"6 inch')]
)
def test_a_quotation_mark_that_nothing_closes_takes_no_rows_away(tmp_path, notes):
    pictures(tmp_path, *(f"images/{row}.jpg" for row in range(len(notes))))
    rows = [f"{row}.jpg,{'xy'[row % 2]},{note}" for row, note in enumerate(notes)]
    (tmp_path / "train.csv").write_text("\n".join(["path,label,note", *rows]))
    line = 2 + next(row for row, note in enumerate(notes) if note != "ok")
    with pytest.raises(
        ValueError, match=rf"train.csv is not a table of text from line {line} on .* closed$"
    ):
        read("csv", tmp_path)


@pytest.mark.parametrize("mark", [";", ",", "\t"])
def test_a_table_may_begin_with_the_line_of_excel_that_says_what_is_between_cells(tmp_path, mark):
    pictures(tmp_path, *(f"images/{row}.jpg" for row in range(4)))
    cells = ["path,label,note", *(f"{row}.jpg,{'xy'[row % 2]},-" for row in range(4))]
    table = "\r\n".join([f"sep={mark}", *(row.replace(",", mark) for row in cells)])
    (tmp_path / "train.csv").write_bytes(table.encode())
    dataset = read("csv", tmp_path)
    assert (dataset.class_names, dataset.labels.tolist()) == (("x", "y"), [0, 1, 0, 1])


def test_a_row_without_a_part_is_met_in_words(tmp_path):
    pictures(tmp_path, *(f"images/{row}.jpg" for row in range(4)))
    rows = ["path,label,split", "0.jpg,x,train", "1.jpg,x,", "2.jpg,y,train", "3.jpg,y,test"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    dataset = read("csv", tmp_path)
    assert dataset.parts is None
    assert dataset.notes[0].startswith(
        "column split of train.csv is not used: '' is no part (train"
    )
    with pytest.raises(ValueError, match=r"column split of .* has the value ''; parts are train"):
        read("csv", tmp_path, split_column="split")


def test_one_hot_columns_may_hold_true_and_false(tmp_path):
    """As pandas.get_dummies makes them: classes were called False and True, by the first column."""
    pictures(tmp_path, *(f"images/{row}.jpg" for row in range(4)))
    rows = ["path,gull,tern", "0.jpg,True,False", "1.jpg,False,True", "2.jpg,true,0", "3.jpg,0,1"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    dataset = read("csv", tmp_path)
    assert (dataset.class_names, dataset.labels.tolist()) == (("gull", "tern"), [0, 1, 0, 1])


def test_a_class_that_is_called_like_a_drive_is_refused_for_that(tmp_path):
    pictures(tmp_path, "A: good/1.jpg", "bad/1.jpg")
    faults = read("folder", tmp_path, tolerant=True).faults
    assert "begin like a drive of Windows, as C: does: 1 (first: A: good/1.jpg)" in faults[0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pictures(tmp_path, *(f"images/{number:03}.jpg" for number in range(6)))
    return tmp_path


def table(root: Path, *rows: str, encoding: str = "utf-8") -> None:
    (root / "train.csv").write_text("".join(f"{row}\n" for row in rows), encoding=encoding)


NAMES = ("ant", "ant", "bee", "bee", "cow", "cow")
FILES = tuple(f"{number:03}.jpg" for number in range(6))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (",path,label", "{i},{file},{name}"),
        ("path,width,height,label", "{file},4{i},3,{name}"),
        ("path,split,label", "{file},train,{name}"),
        ("label,path", "{name},{file}"),
        ("path;label", "{file};{name}"),
        ("path\tlabel", "{file}\t{name}"),
        ("path , label", "{file} , {name} "),
        ("path,label,", "{file},{name},"),
        ("path,label", "images/{file},{name}"),
        ("path,label", "{root}/images/{file},{name}"),
        ("file,bird", "{file},{name}"),
    ],
)
def test_a_table_is_read_by_what_its_columns_say(photos, header, row):
    table(
        photos,
        header,
        *(
            row.format(i=i, file=file, name=name, root=photos)
            for i, (file, name) in enumerate(zip(FILES, NAMES, strict=True))
        ),
    )
    dataset = read("csv", photos)
    assert dataset.paths == tuple(f"images/{file}" for file in FILES)
    assert [dataset.class_names[label] for label in dataset.labels] == list(NAMES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_table_says_its_encoding_by_its_first_bytes_or_is_told_it(photos, encoding):
    table(
        photos,
        "path,label",
        *(f"{file},{name}ö" for file, name in zip(FILES, NAMES, strict=True)),
        encoding=encoding,
    )
    if encoding in ("utf-8-sig", "utf-16"):
        assert read("csv", photos).class_names == ("antö", "beeö", "cowö")
    else:
        with pytest.raises(ValueError):
            read("csv", photos)
    assert read("csv", photos, encoding=encoding).class_names == ("antö", "beeö", "cowö")


def test_a_table_whose_encoding_is_named_may_begin_with_a_mark_of_it_too(photos):
    rows = [f"{name},train,{file}" for file, name in zip(FILES, NAMES, strict=True)]
    table(photos, "bird,split,path", *rows, encoding="utf-8-sig")
    dataset = read("csv", photos, encoding="utf-8", label_column="bird")
    assert dataset.class_names == ("ant", "bee", "cow")


def test_a_table_in_another_encoding_is_refused_with_its_line_and_the_option(photos):
    table(photos, "path,label", "000.jpg,ant", "001.jpg,Bär", encoding="cp1252")
    with pytest.raises(
        ValueError,
        match=r"train.csv line 3 is not utf-8 text: .*--set data\.dataset\.encoding=cp1252",
    ):
        read("csv", photos)


@pytest.mark.parametrize(
    ("values", "names"), [(("1", "1.0", "2"), ("1", "2")), (("1.0", "1.0", "2.0"), ("1.0", "2.0"))]
)
def test_1_and_1_0_are_one_class_and_a_column_of_floats_keeps_its_names(photos, values, names):
    table(
        photos,
        "path,label",
        *(f"{file},{value}" for file, value in zip(FILES, values, strict=False)),
    )
    assert read("csv", photos).class_names == names


def test_the_column_that_is_taken_among_several_is_named(photos):
    table(photos, "path,width,label", "000.jpg,40,ant", "001.jpg,41,bee")
    assert read("csv", photos).notes == (
        "the classes are column label of train.csv; other columns: width",
    )
    assert read("csv", photos, label_column="label").notes == ()


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (
            ["000.jpg,ant", "001.jpg,bee"],
            "begins with an image \\(000.jpg\\) and not with the names of its columns",
        ),
        (
            ["path,label", "000.jpg,ant", "001.jpg,nan", "002.jpg,bee"],
            r"without a class in column 'label': 1 \(first: line 3\)",
        ),
        (["path,label", "0,ant", "1,bee"], "write 000.jpg with its zeros"),
        (["path,label", "000,ant", "001,bee"], r"--set data\.dataset\.suffix=\.jpg"),
        (["path,label", "000.JPG,ant", "001.jpg,bee"], "write 000.jpg as the disk has it"),
        (["path,label", "/elsewhere/000.jpg,ant", "001.jpg,bee"], "lead out of 'images'"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_one_line_with_what_to_do(photos, rows, problem):
    table(photos, *rows)
    with pytest.raises(ValueError, match=problem) as refused:
        read("csv", photos)
    assert "\n" not in str(refused.value)


def test_a_split_column_gives_the_parts(photos):
    rows = [
        f"{file},{name},{'Training' if i % 2 else 'test'}"
        for i, (file, name) in enumerate(zip(FILES, NAMES, strict=True))
    ]
    table(photos, "path,label,split", *rows)
    dataset = read("csv", photos)
    assert dataset.parts == ("test", "train") * 3
    assert make_split(dataset, method="given", test_fraction=0.2, seed=1).train.tolist() == [
        1,
        3,
        5,
    ]
    table(photos, "path,label,fold", *rows)
    assert read("csv", photos).parts is None
    assert read("csv", photos, split_column="fold").parts == ("test", "train") * 3


def test_a_split_column_of_other_values_is_named_or_refused_where_it_was_asked_for(photos):
    table(
        photos,
        "path,label,split",
        *(f"{file},{name},A" for file, name in zip(FILES, NAMES, strict=True)),
    )
    assert (
        read("csv", photos)
        .notes[0]
        .startswith("column split of train.csv is not used: 'A' is no part")
    )
    with pytest.raises(ValueError, match="column split of .* has the value 'A'"):
        read("csv", photos, split_column="split")


def test_a_table_of_open_metric_learning_says_who_asks_and_who_is_looked_up(photos):
    roles = (
        "train,,",
        "train,,",
        "validation,True,True",
        "validation,True,False",
        "validation,False,True",
        "validation,True,True",
    )
    rows = (f"{file},{name},{role}" for file, name, role in zip(FILES, NAMES, roles, strict=True))
    table(photos, "path,label,split,is_query,is_gallery", *rows)
    assert read("csv", photos).parts == ("train", "train", "test", "query", "gallery", "test")


# The wrong data set, or the wrong level


def test_photos_in_class_folders_are_not_advised_to_be_cub(tmp_path):
    pictures(tmp_path, "ant/1.jpg", "bee/1.jpg")
    for name in ("cub", "sop", "cars196", "inshop", "csv"):
        with pytest.raises(
            ValueError, match=r"holds folders of images \(ant, bee\), so give --dataset folder$"
        ) as refused:
            read(name, tmp_path)
        assert "fetch" not in str(refused.value)


def test_a_table_and_cub_itself_are_recognised_where_something_else_was_asked_for(photos, birds):
    table(photos, "path,label", "000.jpg,ant", "001.jpg,bee")
    with pytest.raises(
        ValueError, match=r"give --dataset csv --set data\.dataset\.table=train.csv$"
    ):
        read("cub", photos)
    with pytest.raises(ValueError, match="give --dataset cub$"):
        read("folder", birds)


def test_folders_of_a_published_data_set_are_pointed_out(tmp_path):
    pictures(tmp_path, "bicycle_final/1.jpg", "chair_final/1.jpg")
    (tmp_path / "Ebay_train.txt").touch()
    assert read("folder", tmp_path).notes == (
        (
            f"{tmp_path} has the layout of sop, whose classes are not its folders: --dataset sop"
            " reads them"
        ),
    )


def test_cub_is_found_two_levels_down_and_its_images_lead_to_the_folder_above(tmp_path, birds):
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "cub_200_2011").symlink_to(birds, target_is_directory=True)
    assert read("cub", tmp_path).fingerprint == read("cub", birds).fingerprint
    with pytest.raises(ValueError, match=f"images is a part of cub: give --data-dir {birds}$"):
        read("cub", birds / "images")


def test_the_folder_s_own_name_decides_among_several_lists_of_images(tmp_path, birds):
    (tmp_path / "CUB_200_2011").symlink_to(birds, target_is_directory=True)
    (tmp_path / "nabirds").mkdir()
    (tmp_path / "nabirds" / "images.txt").write_text("1 a/b.jpg\n")
    assert len(read("cub", tmp_path)) == 64


# Faults


def test_all_faults_are_collected_and_a_run_is_told_how_many_more_there_are(tmp_path):
    pictures(tmp_path, "a/1.jpg", "b/1.jpg", "stray.jpg", "b/2.heic")
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(
        ValueError,
        match=r"outside of any class folder.* \(3 more: dml-bench data check lists them\)$",
    ):
        read("folder", tmp_path)
    dataset = read("folder", tmp_path, tolerant=True)
    assert dataset.paths == ("a/1.jpg", "b/1.jpg")
    assert [fault.partition(":")[0].split(" in ")[0] for fault in dataset.faults] == [
        "images",
        "images",
        "images that do not exist",
        "classes without images",
    ]


def test_options_of_the_readers_can_be_written_to_a_file():
    for name in ("folder", "csv"):
        assert json.loads(json.dumps(datasets[name].resolve({}, name)))
