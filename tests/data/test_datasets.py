"""Readers of data sets and the decoding of single images, on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dml_bench.config import Component
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.images import Unreadable, decode, size_of
from dml_bench.data.synthetic import EDITION
from dml_bench.registry import datasets

RED, GREEN = (255, 0, 0), (0, 255, 0)


def picture(path: Path, colour=RED, size=(8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def lines(path: Path, *content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return path


def read(name: str, data_dir: Path, **options) -> Dataset:
    return open_dataset(
        Component(name, datasets[name].resolve(options, "data.dataset")),
        data_dir,
        data_dir / "cache",
    )


CUB = {
    "images.txt": [
        "1 002.Wren/w_2.jpg",
        "2 001.Auk/a_1.jpg",
        "3 002.Wren/w_10.jpg",
        "4 010.Jay/j 1.jpg",
    ],
    "classes.txt": ["10 010.Jay", "2 002.Wren", "1 001.Auk"],
    "image_class_labels.txt": ["1 2", "2 1", "3 2", "4 10"],
    "train_test_split.txt": ["1 1", "2 0", "3 0", "4 1"],
    "bounding_boxes.txt": ["1 1.0 2.0 3.0 4.0", "2 0 0 8 6", "3 0.5 0.5 2 2", "4 1 1 1 1"],
}


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    for name, content in CUB.items():
        lines(root / name, *content)
    for line in CUB["images.txt"]:
        picture(root / "images" / line.split(maxsplit=1)[1])
    return root


def test_cub_is_sorted_by_path_with_classes_in_the_order_of_their_ids(cub):
    dataset = read("cub", cub)
    assert dataset.name == "cub"
    assert dataset.root == cub
    assert dataset.paths == (
        "images/001.Auk/a_1.jpg",
        "images/002.Wren/w_10.jpg",
        "images/002.Wren/w_2.jpg",
        "images/010.Jay/j 1.jpg",
    )
    assert dataset.class_names == ("001.Auk", "002.Wren", "010.Jay")
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    assert dataset.labels.dtype == np.int64
    assert dataset.parts == ("test", "test", "train", "train")
    assert dataset.boxes is None


def test_cub_is_found_in_the_parent_folder_and_reads_the_same(cub):
    assert read("cub", cub.parent).fingerprint == read("cub", cub).fingerprint


def test_the_order_of_the_lists_of_cub_does_not_matter(cub):
    before = read("cub", cub).fingerprint
    for name, content in CUB.items():
        lines(cub / name, *reversed(content))
    assert read("cub", cub).fingerprint == before


def test_crop_to_box_gives_every_image_its_own_box(cub):
    dataset = read("cub", cub, crop_to_box=True)
    assert dataset.boxes is not None
    assert dataset.boxes.tolist() == [[0, 0, 8, 6], [0.5, 0.5, 2, 2], [1, 2, 3, 4], [1, 1, 1, 1]]
    assert dataset.fingerprint != read("cub", cub).fingerprint


def test_without_train_test_split_txt_there_are_no_parts(cub):
    (cub / "train_test_split.txt").unlink()
    assert read("cub", cub).parts is None


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("classes.txt", None, "classes.txt is missing"),
        (
            "image_class_labels.txt",
            ["1 2", "2 1", "4 10"],
            r"images without a class in .*: 1 \(first: 002.Wren/w_10.jpg\)",
        ),
        (
            "image_class_labels.txt",
            ["1 2", "2 1", "3 2", "4 11"],
            r"class ids in .* that classes.txt lacks: 1 \(first: image 4: 11\)",
        ),
        (
            "image_class_labels.txt",
            ["1 2", "2 1", "3 2", "4 two"],
            "line 4 must be a number and its value, got '4 two'",
        ),
        (
            "image_class_labels.txt",
            ["1 2", "2 1", "3 2", "4 10", "4 2"],
            "line 5 uses the id 4 again",
        ),
        (
            "image_class_labels.txt",
            ["1 2", "2 1", "3 2", "4 2"],
            r"classes without images in .*: 1 \(first: 010.Jay\)",
        ),
        (
            "images.txt",
            [*CUB["images.txt"][:3], "4 002.Wren/w_2.jpg"],
            r"images listed twice in .*: 1 \(first: images/002.Wren/w_2.jpg\)",
        ),
        (
            "images.txt",
            [*CUB["images.txt"][:3], "4 010.Jay/gone.jpg"],
            r"images that do not exist in .*: 1 \(first: images/010.Jay/gone.jpg\)",
        ),
        ("images.txt", [*CUB["images.txt"][:3], "4 ../../secret.jpg"], "that lead out of"),
        ("classes.txt", ["10 001.Auk", "2 002.Wren", "1 001.Auk"], "class names used twice"),
        ("train_test_split.txt", ["1 1", "2 0", "3 0"], "images without a part"),
        (
            "train_test_split.txt",
            ["1 1", "2 0", "3 0", "4 2"],
            "line 4 must be a number and its value, got '4 2'",
        ),
    ],
)
def test_lists_of_cub_that_contradict_each_other_are_refused_in_one_line(
    cub, file, content, problem
):
    if content is None:
        (cub / file).unlink()
    else:
        lines(cub / file, *content)
    with pytest.raises(ValueError, match=problem) as caught:
        read("cub", cub)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("box", ["4 1 1 0 1", "4 1 1 nan 1", "4 1 1 1"])
def test_a_box_without_area_is_refused(cub, box):
    lines(cub / "bounding_boxes.txt", *CUB["bounding_boxes.txt"][:3], box)
    with pytest.raises(ValueError, match=r"bounding_boxes.txt line 4"):
        read("cub", cub, crop_to_box=True)


def test_a_folder_without_cub_is_refused_with_the_command_that_fetches_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"images.txt is missing.*dml-bench data fetch cub --data-dir"
    ):
        read("cub", tmp_path)


def test_a_data_set_without_its_folder_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(
        ValueError, match=r"--data-dir DIR; dml-bench data fetch cub --data-dir DIR .* --demo"
    ):
        open_dataset(Component("cub", {"crop_to_box": False}), None, tmp_path)
    with pytest.raises(
        ValueError, match=r"dataset folder needs a folder of images: give it with --data-dir DIR$"
    ):
        open_dataset(Component("folder"), None, tmp_path)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        open_dataset(Component("folder"), tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        open_dataset(Component("folder"), picture(tmp_path / "a.png"), tmp_path)


def test_a_folder_given_to_the_drawn_birds_is_refused_because_it_has_no_effect(tmp_path):
    with pytest.raises(ValueError, match="--data-dir has no effect"):
        open_dataset(Component("demo"), tmp_path, tmp_path)


def test_folders_are_classes_and_hidden_files_are_not_images(tmp_path):
    root = tmp_path / "My photos (2)"
    for path in (
        "b/2.JPG",
        "b/1.png",
        "a/deep/er/3.gif",
        "B/4.tiff",
        "a/.hidden.jpg",
        ".git/x/5.jpg",
        "__MACOSX/a/6.jpg",
        "b/.trash/7.jpg",
    ):
        picture(root / path)
    lines(root / ".DS_Store", "x")
    lines(root / "README.txt", "not an image")
    lines(root / "a" / "labels.xml", "not an image")
    dataset = read("folder", root)
    assert dataset.name == "My-photos-2"
    assert dataset.paths == ("B/4.tiff", "a/deep/er/3.gif", "b/1.png", "b/2.JPG")
    assert dataset.class_names == ("B", "a", "b")
    assert dataset.labels.tolist() == [0, 1, 2, 2]
    assert dataset.parts is None


def test_train_val_and_test_folders_become_parts_and_share_their_classes(tmp_path):
    for path in ("train/a/1.png", "train/b/1.png", "val/a/2.png", "test/b/3.png", "test/c/4.png"):
        picture(tmp_path / path)
    dataset = read("folder", tmp_path)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.paths == (
        "test/b/3.png",
        "test/c/4.png",
        "train/a/1.png",
        "train/b/1.png",
        "val/a/2.png",
    )
    assert dataset.labels.tolist() == [1, 2, 0, 1, 0]
    assert dataset.parts == ("test", "test", "train", "train", "valid")


def test_a_class_may_be_called_train(tmp_path):
    for path in ("train/1.png", "car/1.png", "test/1.png"):
        picture(tmp_path / path)
    dataset = read("folder", tmp_path)
    assert dataset.class_names == ("car", "test", "train")
    assert dataset.parts is None


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], "has no class folders"),
        (["a/1.png"], r"must have at least 2 class folders, got a alone"),
        (["a/1.png", "b/notes.txt"], r"classes without images in .*: 1 \(first: b\)"),
        (
            ["a/1.png", "b/1.png", "0.png"],
            (
                r"outside of any class folder: 1 \(first: .*0.png\); move each into the folder of"
                r" its class"
            ),
        ),
        (
            ["a/1.png", "b/1.png", "b/2.heic"],
            r"of a format that is not read: 1 \(first: .*2.heic\)",
        ),
        (["train/a/1.png", "train/b/1.png", "test/1.png"], "outside of any class folder"),
        (["train/1.png", "test/1.png"], "outside of any class folder"),
        (
            ["train/a/1.png", "test/a/1.png", "spare/a/1.png"],
            r"folders beside the parts test, train .*: 1 \(first: .*spare\)",
        ),
    ],
)
def test_no_image_of_a_folder_is_left_out_unnoticed(tmp_path, files, problem):
    for file in files:
        lines(tmp_path / file, "") if file.endswith(("txt", "heic")) else picture(tmp_path / file)
    with pytest.raises(ValueError, match=problem) as caught:
        read("folder", tmp_path)
    assert "\n" not in str(caught.value)


def test_links_to_folders_are_followed_but_never_in_a_circle(tmp_path):
    picture(tmp_path / "elsewhere" / "1.png")
    picture(tmp_path / "data" / "b" / "2.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert read("folder", tmp_path / "data").paths == ("a/1.png", "b/2.png")
    (tmp_path / "data" / "b" / "again").symlink_to(
        tmp_path / "data" / "b", target_is_directory=True
    )
    with pytest.raises(ValueError, match="links to a folder that it lies in"):
        read("folder", tmp_path / "data")


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "2.png")
    (tmp_path / "b" / "3.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"b/3.png"):
        read("folder", tmp_path)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for name in ("images/x.jpg", "images/sub/y.jpg", "images/z.jpg"):
        picture(tmp_path / name)
    return tmp_path


def test_a_table_gives_file_and_class_in_its_first_two_columns(listed):
    lines(
        listed / "train.csv",
        "file,bird,photographer",
        "z.jpg,wren,Ann",
        "x.jpg,auk,Bob",
        "sub/y.jpg,wren,Ann",
    )
    dataset = read("csv", listed)
    assert dataset.paths == ("images/sub/y.jpg", "images/x.jpg", "images/z.jpg")
    assert dataset.class_names == ("auk", "wren")
    assert dataset.labels.tolist() == [1, 0, 1]


def test_the_columns_of_a_table_can_be_named_and_names_completed(listed):
    lines(listed / "birds.csv", "bird,id", "wren,z", "auk,x.jpg", "wren,sub/y")
    dataset = read(
        "csv", listed, table="birds.csv", file_column="id", label_column="bird", suffix="jpg"
    )
    assert dataset.paths == ("images/sub/y.jpg", "images/x.jpg", "images/z.jpg")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert (
        read("csv", listed, table="birds.csv", label_column="bird", suffix=".jpg").fingerprint
        == dataset.fingerprint
    )


def test_one_hot_columns_are_classes_in_the_order_of_the_columns(listed):
    lines(listed / "train.csv", "file,wren,auk", "z.jpg,1,0", "x.jpg,0,1", "sub/y.jpg,1.0,0.0")
    dataset = read("csv", listed)
    assert dataset.class_names == ("wren", "auk")
    assert dataset.labels.tolist() == [0, 1, 0]


def test_one_hot_columns_may_stand_beside_what_the_images_are_grouped_by(listed):
    rows = ("z.jpg,1,0,north", "x.jpg,0,1,south", "sub/y.jpg,1,0,north")
    lines(listed / "train.csv", "file,wren,auk,place", *rows)
    dataset = read("csv", listed)
    assert dataset.class_names == ("wren", "auk")
    assert dataset.columns is not None and "place" in dataset.columns


def test_a_named_class_column_of_zeros_and_ones_is_not_one_hot(listed):
    lines(listed / "train.csv", "file,kind,blurred", "z.jpg,1,0", "x.jpg,0,1", "sub/y.jpg,1,0")
    assert read("csv", listed, label_column="kind").class_names == ("0", "1")


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (
            ["f,a,b", "x.jpg,1,0", "z.jpg,0,1", "sub/y.jpg,1,1"],
            {},
            r"without exactly one 1: 1 \(first: line 4\)",
        ),
        (
            ["f,a,b", "x.jpg,1,0", "z.jpg,0,1", "sub/y.jpg,0,0"],
            {},
            r"without exactly one 1: 1 \(first: line 4\)",
        ),
        (["f,l", "x.jpg,a", "gone.jpg,b"], {}, r"do not exist in .*: 1 \(first: images/gone.jpg\)"),
        (["f,l", "x,a", "z,b"], {}, r"or --set data\.dataset\.suffix=\.jpg"),
        (["f,l", "x.jpg,a", "sub/../x.jpg,b"], {}, "lead out of 'images'"),
        (["f,l", "x.jpg,a", "./x.jpg,b"], {}, r"listed twice in .*: 1 \(first: images/x.jpg\)"),
        (["f,l", "x.jpg,a", "/etc/passwd,b"], {}, "lead out of 'images'"),
        (["f,l", "x.jpg,a", "z.jpg, "], {}, r"without a class in column 'l': 1 \(first: line 3\)"),
        (["f,l", "x.jpg,a", "z.jpg"], {}, r"have not 2 values: 1 \(first: line 3\)"),
        (
            ["f,l", "x.jpg,a", "z.jpg,b"],
            {"label_column": "L"},
            r"no column 'L' \(did you mean l\?\); its columns: f, l",
        ),
        (["f,l", "x.jpg,a", "z.jpg,b"], {"label_column": "f", "file_column": "f"}, "are both 'f'"),
        (
            ["f,l", "x.jpg,a", "z.jpg,b"],
            {"folder": "image"},
            r"is not a folder \(did you mean images\?\)",
        ),
        (
            ["f,l", "x.jpg,a", "z.jpg,b"],
            {"table": "trian.csv"},
            r"\(did you mean train.csv\?\); there are: train.csv",
        ),
        (["f,l", "x.jpg,a", "z.jpg,a"], {}, "must have at least 2 classes, got 1"),
        (["f", "x.jpg"], {}, "commas between"),
        (["f,l,l", "x.jpg,a,a"], {}, "columns of .* with the same name"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_place(listed, content, options, problem):
    lines(listed / "train.csv", *content)
    with pytest.raises(ValueError, match=problem) as caught:
        read("csv", listed, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_file_beside_the_table_is_named_and_not_a_folder_that_nobody_named(tmp_path):
    for name in ("x.jpg", "photos/z.jpg"):
        picture(tmp_path / name)
    lines(tmp_path / "train.csv", "f,l", "x.jpg,a", "photos/z.jpg,b", "photos/gone.jpg,b")
    with pytest.raises(ValueError, match=r"do not exist in .*: 1 \(first: photos/gone.jpg\)"):
        read("csv", tmp_path)


def test_unequal_classes_of_drawn_birds_fall_by_one_factor_in_a_drawn_order(tmp_path):
    options = {"classes": 4, "per_class": 27, "imbalance": 27, "size": 16}
    component = Component(
        "demo_unbalanced", datasets["demo_unbalanced"].resolve(options, "data.dataset")
    )
    counts = np.bincount(open_dataset(component, None, tmp_path).labels).tolist()
    assert sorted(counts) == [2, 3, 9, 27], "at least two images"
    assert counts != sorted(counts) and counts != sorted(counts, reverse=True)


def test_the_drawn_birds_are_drawn_once_and_read_like_cub(tmp_path):
    component = Component(
        "demo", datasets["demo"].resolve({"classes": 2, "per_class": 2, "size": 32}, "data.dataset")
    )
    dataset = open_dataset(component, None, tmp_path)
    assert (dataset.name, len(dataset), dataset.num_classes) == ("demo", 4, 2)
    assert dataset.root == tmp_path / f"demo-2x2-32px-seed7-edition{EDITION}"
    first = dataset.root / dataset.paths[0]
    written = first.stat().st_mtime_ns
    assert open_dataset(component, None, tmp_path).fingerprint == dataset.fingerprint
    assert first.stat().st_mtime_ns == written
    first.unlink()
    assert open_dataset(component, None, tmp_path).fingerprint == dataset.fingerprint, (
        "what is lost is drawn again, to the same bits"
    )


def test_a_fingerprint_changes_with_a_byte_of_any_image(cub):
    before = read("cub", cub).fingerprint
    with open(cub / "images/001.Auk/a_1.jpg", "ab") as file:
        file.write(b"\0")
    assert read("cub", cub).fingerprint != before


def test_a_data_set_without_some_images_keeps_its_class_ids_and_names_what_it_left_out(cub):
    dataset = read("cub", cub, crop_to_box=True).without({0})
    assert dataset.labels.tolist() == [1, 1, 2]
    assert dataset.num_classes == 3
    assert dataset.left_out == ("images/001.Auk/a_1.jpg",)
    assert dataset.boxes is not None and len(dataset.boxes) == len(dataset.parts or ()) == 3


def test_every_reader_has_options_that_a_file_can_hold():
    for entry in datasets:
        values = entry.resolve({}, entry.name)
        assert json.loads(json.dumps(values)) == values


def pixel(path: Path, x: int = 0, y: int = 0) -> tuple[int, ...]:
    image = decode(path)
    assert image.mode == "RGB"
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        (1, (2, 2)),
        (2, (57, 2)),
        (3, (57, 37)),
        (4, (2, 37)),
        (5, (2, 2)),
        (6, (37, 2)),
        (7, (37, 57)),
        (8, (2, 57)),
    ],
)
def test_an_image_is_turned_upright_by_its_exif_orientation(tmp_path, suffix, orientation, corner):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :20] = RED
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    assert decode(path).size == size_of(path) == ((60, 40) if orientation < 5 else (40, 60))
    red, green, blue = pixel(path, *corner)
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(
    ("mode", "colour", "name", "wanted"),
    [
        ("L", 77, "grey.jpg", (77, 77, 77)),
        ("1", 1, "bits.png", (255, 255, 255)),
        ("LA", (0, 128), "grey-half.png", (127, 127, 127)),
        ("RGBA", (255, 0, 0, 0), "clear.png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), "opaque.png", (255, 0, 0)),
        ("RGBA", (0, 0, 255, 128), "half.webp", None),
        ("CMYK", (0, 255, 255, 0), "print.jpg", (254, 0, 0)),
        ("I;16", 40000, "deep.png", (156, 156, 156)),
        ("I;16", 65535, "deep.tif", (255, 255, 255)),
    ],
)
def test_every_colour_mode_becomes_rgb_with_transparency_over_white(
    tmp_path, mode, colour, name, wanted
):
    if mode == "I;16":
        Image.fromarray(np.full((6, 8), colour, np.uint16)).save(tmp_path / name)
    else:
        Image.new(mode, (8, 6), colour).save(
            tmp_path / name, **({"lossless": True} if name.endswith("webp") else {})
        )
    assert pixel(tmp_path / name) == pytest.approx(wanted or (127, 127, 255), abs=1)


def test_a_palette_image_with_a_transparent_colour_lies_over_white(tmp_path):
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "solid.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert pixel(tmp_path / "solid.png") == (255, 0, 0)
    assert pixel(tmp_path / "clear.png") == (255, 255, 255)


def test_a_transparent_grey_of_16_bits_leaves_the_other_greys_alone(tmp_path):
    grey = np.full((6, 8), 40000, np.uint16)
    grey[0, 0] = 1000
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=1000)
    assert pixel(tmp_path / "a.png") == (255, 255, 255)
    assert pixel(tmp_path / "a.png", 1, 0) == (156, 156, 156)


def test_the_first_frame_of_a_gif_is_taken(tmp_path):
    Image.new("RGB", (8, 6), RED).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 6), GREEN)]
    )
    assert pixel(tmp_path / "a.gif") == RED


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif"])
def test_a_truncated_file_is_unreadable_and_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable, match=rf"a\.{suffix}: ") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_or_not_there_is_unreadable(tmp_path):
    with pytest.raises(Unreadable, match="not an image"):
        decode(lines(tmp_path / "a.jpg", "<html>not found</html>"))
    with pytest.raises(Unreadable, match="No such file"):
        decode(tmp_path / "gone.jpg")


@pytest.mark.parametrize("megapixels", ["0.00005", "0.00003", "0.00001"])
def test_an_image_above_the_limit_is_unreadable_and_told_how_to_raise_it(
    tmp_path, monkeypatch, megapixels
):
    monkeypatch.setenv("DML_BENCH_MAX_MEGAPIXELS", megapixels)
    path = picture(tmp_path / "a.png")
    for read in (decode, size_of):
        if megapixels == "0.00005":  # 8 x 6 pixels are 48
            read(path)
            continue
        with pytest.raises(
            Unreadable,
            match=(
                "e-05 megapixels: scale it down, or raise the limit with DML_BENCH_MAX_MEGAPIXELS"
            ),
        ):
            read(path)


def test_a_photo_of_101_megapixels_is_read_without_a_warning(tmp_path):
    (tmp_path / "a.pbm").write_bytes(b"P4 11648 8736 ")
    assert size_of(tmp_path / "a.pbm") == (11648, 8736)


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_above_0_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("DML_BENCH_MAX_MEGAPIXELS", text)
    with pytest.raises(
        ValueError, match=f"DML_BENCH_MAX_MEGAPIXELS must be a number above 0, got {text}"
    ):
        decode(picture(tmp_path / "a.png"))


@pytest.mark.parametrize(
    "exif",
    [b"garbage", b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0x\0\0\0\0\0\0\0"],
    ids=["no header", "a letter as orientation"],
)
def test_damaged_exif_does_not_cost_the_image(tmp_path, exif):
    Image.new("RGB", (8, 6), RED).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert decode(tmp_path / "a.jpg").size == size_of(tmp_path / "a.jpg") == (8, 6)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((1, 2, 3, 3), (3, 3)),
        ((0.4, 0.6, 2.2, 2.2), (3, 2)),
        ((-5, -5, 100, 100), (8, 6)),
        ((6, 4, 100, 100), (2, 2)),
    ],
)
def test_a_box_is_rounded_and_clipped_to_the_image(tmp_path, box, size):
    path = picture(tmp_path / "a.png")
    assert decode(path, box).size == size_of(path, np.array(box)) == size


def test_a_box_refers_to_the_upright_image(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :20] = RED
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    cut = decode(tmp_path / "a.png", (20, 0, 20, 20))
    assert cut.size == (20, 20)
    assert np.all(np.asarray(cut) == RED)


def test_a_box_outside_of_the_image_is_unreadable(tmp_path):
    for read_box in (decode, size_of):
        with pytest.raises(Unreadable, match="outside of the image of 8 x 6 pixels"):
            read_box(picture(tmp_path / "a.png"), (8, 0, 5, 5))


def test_the_same_files_in_another_place_have_the_same_fingerprint(cub, tmp_path):
    before = read("cub", cub).fingerprint
    assert read("cub", cub.rename(tmp_path / "moved")).fingerprint == before
