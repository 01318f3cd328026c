"""Readers of Stanford Cars, Stanford Online Products, In-Shop Clothes Retrieval, Grocery Store and
Omniglot, on small trees in their published layouts."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dml_bench.config import Component
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.images import decode
from dml_bench.data.split import make_split
from dml_bench.registry import datasets

PUBLISHED = (
    *("cars196", "cars196_train", "cub", "flowers102_part"),
    *("grocery", "inshop", "omniglot", "sop"),
)


def read(name: str, data_dir: Path, **options) -> Dataset:
    return open_dataset(
        Component(name, datasets[name].resolve(options, "data.dataset")),
        data_dir,
        data_dir / "cache",
    )


def refusal(name: str, data_dir: Path, **options) -> str:
    """The one line with which the data set is refused, with the folder's name left out."""
    with pytest.raises(ValueError) as caught:
        read(name, data_dir, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(data_dir), "HERE")


def photograph(path: Path, left: int = 0, top: int = 0, right: int = 32, bottom: int = 24) -> None:
    """A blue JPEG of 32 x 24 pixels that is red from `left`, `top` to before `right`, `bottom`."""
    pixels = np.full((24, 32, 3), (0, 0, 255), np.uint8)
    pixels[top:bottom, left:right] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def lines(path: Path, content: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")


# Stanford Cars

CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
CAR_NAMES = ["Tesla Model S Sedan 2012", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
CARS = [
    ("car_ims/000001.jpg", 9, 9, 16, 16, 2, 0),
    ("car_ims/000002.jpg", 1, 1, 32, 24, 2, 1),
    ("car_ims/000003.jpg", 17, 1, 24, 8, 1, 0),
    ("car_ims/000004.jpg", 1, 9, 8, 24, 3, 0),
]
"""Path, corners that count from 1, class id and test flag of each image of the layout with one
folder."""
TRAIN = [("00001.jpg", *CARS[0][1:6]), ("00002.jpg", *CARS[2][1:6]), ("00003.jpg", *CARS[3][1:6])]
TEST = [("00001.jpg", *CARS[1][1:6])]
ONE_FOLDER = ("relative_im_path", *CORNERS, "class", "test")
TWO_FOLDERS = ("fname", *CORNERS, "class")


def stored(field: str, value: object) -> object:
    """Corners with 16 bits, other numbers with 8."""
    return (np.uint16 if field in CORNERS else np.uint8)(value) if isinstance(value, int) else value


def mat(
    path: Path, fields: Sequence[str] = (), rows: Sequence[Sequence] = (), names: Sequence = ()
) -> None:
    """A MATLAB file as the publisher's: a 1 x n struct array with 8 and 16 bit numbers, and a 1 x n
    cell array of names."""
    content = {}
    if fields:
        table = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
        for at, row in enumerate(rows):
            table[0, at] = tuple(
                stored(field, value) for field, value in zip(fields, row, strict=True)
            )
        content["annotations"] = table
    if names:
        cells = np.empty((1, len(names)), dtype=object)
        cells[0, :] = names
        content["class_names"] = cells
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)


def car(path: Path, x1: int, y1: int, x2: int, y2: int, *_: int) -> None:
    photograph(path, x1 - 1, y1 - 1, x2, y2)


@pytest.fixture
def car_ims(tmp_path: Path) -> Path:
    root = tmp_path / "cars196"
    for name, *rest in CARS:
        car(root / name, *rest)
    mat(root / "cars_annos.mat", ONE_FOLDER, CARS, CAR_NAMES)
    return root


@pytest.fixture
def cars_train(tmp_path: Path) -> Path:
    root = tmp_path / "stanford_cars"
    for folder, images in (("cars_train", TRAIN), ("cars_test", TEST)):
        for name, *rest in images:
            car(root / folder / name, *rest)
    mat(root / "devkit" / "cars_meta.mat", names=CAR_NAMES)
    mat(root / "devkit" / "cars_train_annos.mat", TWO_FOLDERS, TRAIN)
    mat(root / "devkit" / "cars_test_annos.mat", TWO_FOLDERS[:-1], [TEST[0][:-1]])
    mat(root / "cars_test_annos_withlabels.mat", TWO_FOLDERS, TEST)
    return root


@pytest.fixture
def training_cars(cars_train: Path) -> Path:
    """The training photos alone, as a copy on GitHub has them: ids of classes in place of
    annotations."""
    shutil.rmtree(cars_train / "cars_test")
    shutil.move(cars_train / "devkit" / "cars_meta.mat", cars_train)
    shutil.rmtree(cars_train / "devkit")
    ids = "".join(f"{row[TWO_FOLDERS.index('class')]}\n" for row in TRAIN)
    (cars_train / "train_perfect_preds.txt").write_text(ids)
    return cars_train


def test_training_photos_of_cars_alone_have_the_classes_of_their_annotations(
    cars_train, request, tmp_path
):
    both = read("cars196", cars_train)
    cut = read("cars196_train", request.getfixturevalue("training_cars"))
    train = [i for i, part in enumerate(both.parts) if part == "train"]
    assert cut.paths == tuple(both.paths[i] for i in train)
    assert cut.labels.tolist() == both.labels[train].tolist()
    assert (cut.class_names, cut.parts) == (both.class_names, None)


def test_training_photos_of_cars_are_no_whole_data_set_and_are_named(training_cars):
    assert "so give --dataset cars196_train" in refusal("cars196", training_cars)


def test_whole_cars_are_not_read_as_the_training_photos(cars_train):
    assert "so give --dataset cars196" in refusal("cars196_train", cars_train)


@pytest.mark.parametrize("line", ["0", "9", "-1", "1.5", "Audi"])
def test_an_id_that_no_class_of_cars_has_is_named_with_its_line(training_cars, line):
    (training_cars / "train_perfect_preds.txt").write_text(f"1\n{line}\n1\n")
    assert "HERE/train_perfect_preds.txt line 2: class must be an id from 1 to" in refusal(
        "cars196_train", training_cars
    )


def test_more_ids_than_training_photos_of_cars_are_named(training_cars):
    with (training_cars / "train_perfect_preds.txt").open("a") as ids:
        ids.write("1\n")
    assert "cars_train/00004.jpg" in refusal("cars196_train", training_cars)


def test_cars_in_one_folder_have_the_classes_and_parts_of_their_annotations(car_ims):
    dataset = read("cars196", car_ims)
    assert (dataset.name, dataset.root) == ("cars196", car_ims)
    assert dataset.paths == (
        "car_ims/000001.jpg",
        "car_ims/000002.jpg",
        "car_ims/000003.jpg",
        "car_ims/000004.jpg",
    )
    assert dataset.labels.tolist() == [1, 1, 0, 2]
    assert dataset.labels.dtype == np.int64
    assert dataset.parts == ("train", "test", "train", "train")
    assert dataset.boxes is None


def test_classes_of_cars_are_in_the_order_of_their_ids_and_not_of_their_names(car_ims):
    assert read("cars196", car_ims).class_names == tuple(CAR_NAMES)


def test_cars_in_two_folders_have_the_parts_of_their_folders(cars_train):
    dataset = read("cars196", cars_train)
    assert dataset.paths == (
        "cars_test/00001.jpg",
        "cars_train/00001.jpg",
        "cars_train/00002.jpg",
        "cars_train/00003.jpg",
    )
    assert dataset.labels.tolist() == [1, 1, 0, 2]
    assert dataset.class_names == tuple(CAR_NAMES)
    assert dataset.parts == ("test", "train", "train", "train")


@pytest.mark.parametrize(
    ("layout", "boxes"),
    [
        ("car_ims", [[8, 8, 8, 8], [0, 0, 32, 24], [16, 0, 8, 8], [0, 8, 8, 16]]),
        ("cars_train", [[0, 0, 32, 24], [8, 8, 8, 8], [16, 0, 8, 8], [0, 8, 8, 16]]),
    ],
)
def test_the_box_of_a_car_holds_its_first_and_last_pixel_counted_from_1(layout, boxes, request):
    dataset = read("cars196", request.getfixturevalue(layout), crop_to_box=True)
    assert dataset.boxes is not None
    assert dataset.boxes.tolist() == boxes
    for path, box in zip(dataset.paths, dataset.boxes, strict=True):
        pixels = np.asarray(decode(dataset.root / path, box)).astype(int)
        assert pixels.shape == (box[3], box[2], 3)
        assert pixels[..., 0].min() > 200 and pixels[..., 2].max() < 60, path


def test_the_annotations_of_cars_may_lie_in_devkit_or_beside_the_images(cars_train):
    before = read("cars196", cars_train).fingerprint
    shutil.move(cars_train / "cars_test_annos_withlabels.mat", cars_train / "devkit")
    assert read("cars196", cars_train).fingerprint == before
    for file in (cars_train / "devkit").iterdir():
        shutil.move(file, cars_train)
    assert read("cars196", cars_train).fingerprint == before


def test_a_part_of_the_other_layout_of_cars_beside_a_whole_one_does_not_matter(cars_train, car_ims):
    shutil.copy(car_ims / "cars_annos.mat", cars_train)
    assert read("cars196", cars_train).paths[0] == "cars_test/00001.jpg"
    (cars_train / "cars_annos.mat").unlink()
    (cars_train / "car_ims").mkdir()
    assert read("cars196", cars_train).paths[0] == "cars_test/00001.jpg"
    shutil.copytree(cars_train / "cars_train", car_ims / "cars_train")
    assert read("cars196", car_ims).paths[0] == "car_ims/000001.jpg"


def test_boxes_are_not_asked_of_annotations_that_are_not_cropped(car_ims):
    mat(
        car_ims / "cars_annos.mat",
        ("relative_im_path", "class", "test"),
        [(row[0], *row[5:]) for row in CARS],
        CAR_NAMES,
    )
    assert len(read("cars196", car_ims)) == 4
    assert "annotations of HERE/cars_annos.mat lack: 4 (first: bbox_x1)" in refusal(
        "cars196", car_ims, crop_to_box=True
    )


def changed(at: int, **fields) -> list[tuple]:
    """The annotations of the layout with one folder, with fields of one of them changed."""
    rows = list(CARS)
    names_and_values = zip(ONE_FOLDER, rows[at], strict=True)
    rows[at] = tuple(fields.get(name, value) for name, value in names_and_values)
    return rows


@pytest.mark.parametrize(
    ("rows", "names", "problem"),
    [
        (
            changed(2, **{"class": 4}),
            CAR_NAMES,
            "cars_annos.mat annotation 3: class must be an id from 1 to 3, got 4",
        ),
        (
            changed(0, **{"class": 0}),
            CAR_NAMES,
            "cars_annos.mat annotation 1: class must be an id from 1 to 3, got 0",
        ),
        (
            changed(0, **{"class": 1.5}),
            CAR_NAMES,
            "cars_annos.mat annotation 1: class must be an id from 1 to 3, got 1.5:",
        ),
        (
            changed(1, test=2),
            CAR_NAMES,
            "cars_annos.mat annotation 2: test must be 0 or 1, got 2",
        ),
        (changed(3, relative_im_path=""), CAR_NAMES, "cars_annos.mat annotation 4 names no image"),
        (
            changed(3, relative_im_path="../secret.jpg"),
            CAR_NAMES,
            "that lead out of HERE: 1 (first: ../secret.jpg)",
        ),
        (
            changed(3, relative_im_path="car_ims/000001.jpg"),
            CAR_NAMES,
            "images listed twice in HERE: 1 (first: car_ims/000001.jpg)",
        ),
        (
            changed(3, relative_im_path="car_ims/9.jpg"),
            CAR_NAMES,
            "images that do not exist in HERE: 1 (first: car_ims/9.jpg)",
        ),
        (
            changed(0, bbox_x2=8),
            CAR_NAMES,
            "cars_annos.mat annotation 1 has a box from 9, 9 to 8, 16, which is empty",
        ),
        (
            changed(0, bbox_x2="wide"),
            CAR_NAMES,
            "cars_annos.mat annotation 1: the box must be four numbers, got [9, 9, 'wide', 16]",
        ),
        (
            changed(0, bbox_y1=float("nan")),
            CAR_NAMES,
            "cars_annos.mat annotation 1: the box must be four numbers, got [9, nan, 16, 16]",
        ),
        (CARS, [*CAR_NAMES, "Yugo"], "classes without images in HERE: 1 (first: Yugo)"),
        (CARS, [*CAR_NAMES[:2], CAR_NAMES[0]], "class names used twice in HERE: 1"),
        (
            CARS,
            [*CAR_NAMES[:2], " "],
            "classes of HERE/cars_annos.mat without a name: 1 (first: class id 3)",
        ),
        (CARS, [], "cars_annos.mat has no variable class_names"),
        ([], CAR_NAMES, "classes without images in HERE: 3"),
    ],
)
def test_annotations_of_cars_that_make_no_sense_are_refused_with_their_place(
    car_ims, rows, names, problem
):
    mat(car_ims / "cars_annos.mat", ONE_FOLDER, rows, names)
    assert problem in refusal("cars196", car_ims, crop_to_box=True)


@pytest.mark.parametrize(
    "name", ["cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"]
)
def test_a_missing_annotation_file_of_cars_is_named(cars_train, name):
    next(cars_train.rglob(name)).unlink()
    assert f"HERE lacks {name}, also in devkit: restore it" in refusal("cars196", cars_train)


def test_test_annotations_without_classes_are_not_taken_for_those_with(cars_train):
    shutil.copy(
        cars_train / "devkit" / "cars_test_annos.mat", cars_train / "cars_test_annos_withlabels.mat"
    )
    assert "cars_test_annos_withlabels.mat lack: 1 (first: class)" in refusal("cars196", cars_train)


def test_a_path_of_cars_can_not_leave_its_folder(cars_train):
    mat(cars_train / "cars_test_annos_withlabels.mat", TWO_FOLDERS, [("/etc/passwd", *TEST[0][1:])])
    assert "that lead out of HERE: 1 (first: /etc/passwd)" in refusal("cars196", cars_train)


@pytest.mark.parametrize("damage", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_a_damaged_matlab_file_is_refused(car_ims, damage):
    (car_ims / "cars_annos.mat").write_bytes(damage)
    assert "HERE/cars_annos.mat can't be read as a MATLAB file" in refusal("cars196", car_ims)


def test_a_truncated_matlab_file_is_refused(car_ims):
    content = (car_ims / "cars_annos.mat").read_bytes()
    (car_ims / "cars_annos.mat").write_bytes(content[: len(content) // 2])
    assert "HERE/cars_annos.mat" in refusal("cars196", car_ims)


# Stanford Online Products

SOP_TRAIN = [
    "image_id class_id super_class_id path",
    "1 1 1 bicycle_final/111085122871_0.JPG",
    "2 1 1 bicycle_final/111085122871_1.JPG",
    "3 10 4 coffee_maker_final/221111_0.JPG",
    "4 10 4 coffee_maker_final/221111_1.JPG",
]
SOP_TEST = [
    "image_id class_id super_class_id path",
    "5 2 1 bicycle_final/251952414262_0.JPG",
    "6 2 1 bicycle_final/251952414262_1.JPG",
    "7 11319 12 toaster_final/331 2_0.JPG",
]


@pytest.fixture
def sop(tmp_path: Path) -> Path:
    root = tmp_path / "Stanford_Online_Products"
    for name, content in (("Ebay_train.txt", SOP_TRAIN), ("Ebay_test.txt", SOP_TEST)):
        lines(root / name, content)
        for line in content[1:]:
            photograph(root / line.split(maxsplit=3)[3])
    return root


def test_products_are_sorted_by_path_with_classes_in_the_order_of_their_ids(sop):
    dataset = read("sop", sop)
    assert (dataset.name, dataset.root) == ("sop", sop)
    assert dataset.paths == (
        "bicycle_final/111085122871_0.JPG",
        "bicycle_final/111085122871_1.JPG",
        "bicycle_final/251952414262_0.JPG",
        "bicycle_final/251952414262_1.JPG",
        "coffee_maker_final/221111_0.JPG",
        "coffee_maker_final/221111_1.JPG",
        "toaster_final/331 2_0.JPG",
    )
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert dataset.parts == ("train", "train", "test", "test", "train", "train", "test")
    assert dataset.boxes is None


def test_products_are_called_by_class_id_and_kind(sop):
    assert read("sop", sop).class_names == (
        "00001.bicycle",
        "00002.bicycle",
        "00010.coffee_maker",
        "11319.toaster",
    )


def test_the_order_line_ends_and_blanks_of_the_lists_of_products_do_not_matter(sop):
    before = read("sop", sop).fingerprint
    for name, content in (("Ebay_train.txt", SOP_TRAIN), ("Ebay_test.txt", SOP_TEST)):
        text = "\r\n".join(
            [content[0], *(line.replace(" ", "  ", 2) for line in reversed(content[1:])), "", ""]
        )
        (sop / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read("sop", sop).fingerprint == before


@pytest.mark.parametrize(
    ("file", "line", "content", "problem"),
    [
        (
            "Ebay_train.txt",
            2,
            "3 ten 4 coffee_maker_final/221111_0.JPG",
            (
                "HERE/Ebay_train.txt line 3 must be 'image_id class_id super_class_id path',"
                " got '3 ten 4 coffee_maker"
            ),
        ),
        (
            "Ebay_train.txt",
            2,
            "3 10 coffee_maker_final/221111_0.JPG",
            (
                "HERE/Ebay_train.txt line 3 must be 'image_id class_id super_class_id path',"
                " got '3 10 coffee_maker"
            ),
        ),
        (
            "Ebay_train.txt",
            2,
            "3 10 coffee maker/221111_0.JPG",
            (
                "HERE/Ebay_train.txt line 3 must be 'image_id class_id super_class_id path',"
                " got '3 10 coffee maker"
            ),
        ),
        (
            "Ebay_train.txt",
            3,
            "2 10 4 coffee_maker_final/221111_0.JPG",
            "HERE/Ebay_train.txt line 4 uses the image id 2 again",
        ),
        (
            "Ebay_test.txt",
            1,
            "5 2 1 ../secret.JPG",
            (
                "paths in Ebay_train.txt and Ebay_test.txt that lead out of HERE: 1 (first:"
                " ../secret.JPG)"
            ),
        ),
        (
            "Ebay_test.txt",
            1,
            "5 2 1 bicycle_final/gone.JPG",
            "images that do not exist in HERE: 1 (first: bicycle_final/gone.JPG)",
        ),
        (
            "Ebay_test.txt",
            1,
            "5 2 1 bicycle_final/111085122871_0.JPG",
            "images listed twice in HERE: 1 (first: bicycle_final/1110",
        ),
        (
            "Ebay_test.txt",
            1,
            "5 10 1 bicycle_final/251952414262_0.JPG",
            "classes in both lists of HERE: 1 (first: 10)",
        ),
        (
            "Ebay_test.txt",
            0,
            "5 2 1 bicycle_final/251952414262_0.JPG",
            (
                "HERE/Ebay_test.txt must have the header 'image_id class_id super_class_id path',"
                " got '5 2 1 bicycle_final/251952414262_0.JPG'"
            ),
        ),
    ],
)
def test_a_line_about_products_that_makes_no_sense_is_refused_with_its_number(
    sop, file, line, content, problem
):
    listed = list(SOP_TRAIN if file == "Ebay_train.txt" else SOP_TEST)
    listed[line] = content
    lines(sop / file, listed)
    assert problem in refusal("sop", sop)


def test_image_ids_of_products_may_start_anew_in_the_other_list(sop):
    lines(sop / "Ebay_test.txt", [SOP_TEST[0], "1 " + SOP_TEST[1].partition(" ")[2], *SOP_TEST[2:]])
    assert len(read("sop", sop)) == 7


@pytest.mark.parametrize("file", ["Ebay_train.txt", "Ebay_test.txt"])
def test_a_missing_or_empty_list_of_products_is_refused(sop, file):
    lines(sop / file, [])
    assert (
        f"HERE/{file} must have the header 'image_id class_id super_class_id path', got ''"
        in refusal("sop", sop)
    )
    (sop / file).unlink()
    assert f"HERE/{file} is missing: restore it, or download" in refusal("sop", sop)


# In-Shop Clothes Retrieval

INSHOP = [
    "6",
    "image_name item_id evaluation_status",
    (
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg                           id_00000002 train "
        "     "
    ),
    (
        "img/WOMEN/Dresses/id_00000002/02_2_side.jpg                            id_00000002 train "
        "     "
    ),
    (
        "img/MEN/Denim/id_00000080/01_1_front.jpg                               id_00000080"
        " gallery    "
    ),
    (
        "img/MEN/Denim/id_00000080/01_2_side.jpg                                id_00000080 query "
        "     "
    ),
    (
        "img/WOMEN/Tees_Tanks/id_00000001/02_1_front.jpg                        id_00000001 query "
        "     "
    ),
    (
        "img/WOMEN/Tees_Tanks/id_00000001/02_4_full.jpg                         id_00000001"
        " gallery    "
    ),
]
EVAL = "Eval/list_eval_partition.txt"


@pytest.fixture
def inshop(tmp_path: Path) -> Path:
    root = tmp_path / "In-shop Clothes Retrieval Benchmark"
    lines(root / EVAL, INSHOP)
    for line in INSHOP[2:]:
        photograph(root / "Img" / line.split()[0])
    return root


def test_clothes_are_in_the_parts_train_query_and_gallery_with_classes_in_the_order_of_their_ids(
    inshop,
):
    dataset = read("inshop", inshop)
    assert dataset.name == "inshop"
    assert dataset.paths == (
        "img/MEN/Denim/id_00000080/01_1_front.jpg",
        "img/MEN/Denim/id_00000080/01_2_side.jpg",
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        "img/WOMEN/Dresses/id_00000002/02_2_side.jpg",
        "img/WOMEN/Tees_Tanks/id_00000001/02_1_front.jpg",
        "img/WOMEN/Tees_Tanks/id_00000001/02_4_full.jpg",
    )
    assert dataset.class_names == ("id_00000001", "id_00000002", "id_00000080")
    assert dataset.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert dataset.parts == ("gallery", "query", "train", "train", "query", "gallery")


@pytest.mark.parametrize("place", [EVAL, "list_eval_partition.txt", "Anno/list_eval_partition.txt"])
@pytest.mark.parametrize("images", ["Img/img", "img"])
def test_clothes_are_the_same_wherever_their_list_and_images_lie(inshop, place, images):
    before = read("inshop", inshop).fingerprint
    (inshop / "Img" / "img").rename(inshop / "moved")
    (inshop / "Img").rmdir()
    (inshop / images).parent.mkdir(exist_ok=True)
    (inshop / "moved").rename(inshop / images)
    (inshop / EVAL).rename(inshop / "moved.txt")
    (inshop / place).parent.mkdir(exist_ok=True)
    (inshop / "moved.txt").rename(inshop / place)
    assert read("inshop", inshop).fingerprint == before


def test_the_lists_of_other_benchmarks_are_not_taken_for_that_of_in_shop_clothes(inshop):
    other = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    lines(
        inshop.parent / "Consumer-to-shop Clothes Retrieval Benchmark" / EVAL,
        ["1", other, "img/a.jpg img/b.jpg id_00000001 train"],
    )
    lines(inshop.parent / "CelebA" / EVAL, ["000001.jpg 0", "000002.jpg 0"])
    lines(inshop.parent / "empty" / EVAL, [])
    assert len(read("inshop", inshop.parent)) == 6
    assert (
        "Eval/list_eval_partition.txt must start with the number of images, got '000001.jpg 0'"
        in refusal("inshop", inshop.parent / "CelebA")
    )
    shutil.rmtree(inshop)
    assert refusal("inshop", inshop.parent).startswith(
        "no inshop in HERE (Eval/list_eval_partition.txt is missing): "
    )


@pytest.mark.parametrize(
    ("line", "content", "problem"),
    [
        (0, "52712", "list_eval_partition.txt promises 52712 images in its first line and lists 6"),
        (
            0,
            "six",
            "list_eval_partition.txt must start with the number of images, got 'six'",
        ),
        (
            1,
            "image_name item_id",
            (
                "list_eval_partition.txt must have the header 'image_name item_id"
                " evaluation_status', got 'image_name item_id'"
            ),
        ),
        (
            3,
            "img/WOMEN/Dresses/id_00000002/02_2_side.jpg train",
            (
                "list_eval_partition.txt line 4 must be 'image_name item_id evaluation_status',"
                " got 'img/WOMEN"
            ),
        ),
        (
            3,
            "img/a.jpg id_00000002 galery",
            (
                "line 4 has the status 'galery' (did you mean gallery?); train, query, gallery are"
                " known"
            ),
        ),
        (3, "img/a.jpg id_00000002 val", "list_eval_partition.txt line 4 has the status 'val'"),
        (
            3,
            "../a.jpg id_00000002 train",
            "paths in list_eval_partition.txt that lead out of HERE/Img: 1 (first: ../a.jpg)",
        ),
        (
            3,
            "img/a.jpg id_00000002 train",
            (
                "images that do not exist in HERE/Img: 1 (first: img/a.jpg); unpack img.zip in"
                " HERE/Img"
            ),
        ),
        (
            3,
            INSHOP[2],
            (
                "images listed twice in HERE/Img: 1 (first:"
                " img/WOMEN/Dresses/id_00000002/02_1_front.jpg)"
            ),
        ),
        (
            3,
            "img/a.jpg id_00000080 train",
            "that are both in train and in query or gallery: 1 (first: id_00000080)",
        ),
    ],
)
def test_a_list_of_clothes_that_makes_no_sense_is_refused_with_the_place(
    inshop, line, content, problem
):
    listed = list(INSHOP)
    listed[line] = content
    lines(inshop / EVAL, listed)
    assert problem in refusal("inshop", inshop)


def test_a_path_of_clothes_may_hold_spaces(inshop):
    lines(
        inshop / EVAL,
        [
            *INSHOP[:3],
            "img/WOMEN/Dresses/id_00000002/02 2 side.jpg  id_00000002 train",
            *INSHOP[4:],
        ],
    )
    photograph(inshop / "Img/img/WOMEN/Dresses/id_00000002/02 2 side.jpg")
    assert "img/WOMEN/Dresses/id_00000002/02 2 side.jpg" in read("inshop", inshop).paths


def test_clothes_that_were_not_unpacked_are_refused_with_the_next_step(inshop):
    shutil.rmtree(inshop / "Img")
    assert "images that do not exist in HERE: 6 (first: img/MEN" in refusal("inshop", inshop)
    assert "; unpack img.zip in HERE/Img, or restore them" in refusal("inshop", inshop)


def test_an_empty_list_of_clothes_is_refused(inshop):
    lines(inshop / EVAL, [])
    assert "list_eval_partition.txt must start with the number of images, got ''" in refusal(
        "inshop", inshop
    )


# Grocery Store

GROCERY_CLASSES = [
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image"
    " Path (str),Product Description Path (str)",
    "Royal-Gala,0,Apple,0,/iconic/Royal-Gala_Iconic.jpg,/iconic/Royal-Gala_Description.txt",
    "Banana,1,Banana,1,/iconic/Banana_Iconic.jpg,/iconic/Banana_Description.txt",
    "Granny-Smith,2,Apple,0,/iconic/Granny-Smith_Iconic.jpg,/iconic/Granny-Smith_Description.txt",
]
GROCERY_LISTS = {
    "train.txt": [
        "train/Apple/Royal-Gala_001.jpg, 0, 0",
        "train/Banana/Banana_001.jpg, 1, 1",
        "train/Apple/Granny-Smith_001.jpg, 2, 0",
    ],
    "val.txt": ["val/Banana/Banana_001.jpg, 1, 1"],
    "test.txt": [
        "test/Apple/Royal-Gala_001.jpg, 0, 0",
        "test/Banana/Banana_001.jpg, 1, 1",
        "test/Apple/Granny-Smith_001.jpg, 2, 0",
    ],
}


@pytest.fixture
def grocery(tmp_path: Path) -> Path:
    root = tmp_path / "GroceryStoreDataset" / "dataset"
    lines(root / "classes.csv", GROCERY_CLASSES)
    for grocery_class in GROCERY_CLASSES[1:]:
        photograph(root / grocery_class.split(",")[4].removeprefix("/"))
    for name, content in GROCERY_LISTS.items():
        lines(root / name, content)
        for line in content:
            photograph(root / line.partition(",")[0])
    return root


def test_groceries_have_the_classes_the_kinds_and_the_parts_of_their_lists(grocery):
    dataset = read("grocery", grocery)
    assert (dataset.name, dataset.root) == ("grocery", grocery)
    assert dataset.paths == (
        "test/Apple/Granny-Smith_001.jpg",
        "test/Apple/Royal-Gala_001.jpg",
        "test/Banana/Banana_001.jpg",
        "train/Apple/Granny-Smith_001.jpg",
        "train/Apple/Royal-Gala_001.jpg",
        "train/Banana/Banana_001.jpg",
        "val/Banana/Banana_001.jpg",
    )
    assert dataset.labels.tolist() == [2, 0, 1, 2, 0, 1, 1]
    assert dataset.class_names == ("Royal-Gala", "Banana", "Granny-Smith")
    assert dataset.coarse_classes == ("Apple", "Banana", "Apple")
    assert dataset.parts == ("test", "test", "test", "train", "train", "train", "valid")


@pytest.mark.parametrize("method", ["given", "stratified"])
def test_the_catalogue_of_groceries_is_one_studio_photo_a_class_beside_an_unchanged_split(
    grocery, method
):
    def parted(catalogue: bool) -> dict[str, list[str]]:
        dataset = read("grocery", grocery, catalogue=catalogue)
        split = make_split(dataset, method=method, test_fraction=0.2, seed=1)
        assert not split.has_own_gallery
        paths = {}
        for name in ("train", "test", "valid", "gallery", "catalogue"):
            paths[name] = [dataset.paths[image] for image in getattr(split, name)]
        return paths

    with_catalogue, without = parted(True), parted(False)
    assert with_catalogue["catalogue"] == [
        "iconic/Banana_Iconic.jpg",
        "iconic/Granny-Smith_Iconic.jpg",
        "iconic/Royal-Gala_Iconic.jpg",
    ]
    assert without["catalogue"] == []
    del with_catalogue["catalogue"], without["catalogue"]
    assert with_catalogue == without


def test_groceries_are_found_two_folders_above_their_lists(grocery):
    assert read("grocery", grocery.parent.parent).root == grocery


@pytest.mark.parametrize(
    ("file", "line", "content", "problem"),
    [
        (
            "train.txt",
            1,
            "train/Banana/Banana_001.jpg, one, 1",
            "HERE/train.txt line 2 must be 'path, class id, coarse class id', got 'train/Banana",
        ),
        (
            "test.txt",
            0,
            "test/Apple/Royal-Gala_001.jpg, 0, 1",
            "classes in HERE/test.txt that classes.csv has not: 1 (first: line 1: test/Apple",
        ),
        (
            "val.txt",
            0,
            "val/Banana/Banana_001.jpg, 3, 1",
            "classes in HERE/val.txt that classes.csv has not: 1 (first: line 1: val/Banana",
        ),
        (
            "val.txt",
            0,
            "val/Banana/gone.jpg, 1, 1",
            "images that do not exist in HERE: 1 (first: val/Banana/gone.jpg)",
        ),
        (
            "classes.csv",
            2,
            "Banana,2,Banana,1,/iconic/Banana_Iconic.jpg,/iconic/Banana_Description.txt",
            "HERE/classes.csv line 3 must be of class id 1, with 6 values",
        ),
        (
            "classes.csv",
            3,
            "Granny-Smith,2,Pear,0,/iconic/Granny-Smith_Iconic.jpg,/iconic/x.txt",
            "HERE/classes.csv line 4 must be of class id 2, with 6 values and one name for each",
        ),
    ],
)
def test_a_list_of_groceries_that_makes_no_sense_is_refused_with_the_place(
    grocery, file, line, content, problem
):
    listed = list(GROCERY_CLASSES if file == "classes.csv" else GROCERY_LISTS[file])
    listed[line] = content
    lines(grocery / file, listed)
    assert problem in refusal("grocery", grocery)


def test_a_missing_list_of_groceries_is_refused_with_the_way_to_get_it(grocery):
    (grocery / "val.txt").unlink()
    assert "HERE/val.txt is missing: restore it, or dml-bench data fetch grocery" in refusal(
        "grocery", grocery
    )


# Omniglot

OMNIGLOT = {
    "images_background_small1": {
        "Greek": ("character01", "character02"),
        "Korean": ("character01",),
    },
    "images_background_small2": {
        "Greek": ("character01", "character02"),
        "Tagalog": ("character01",),
    },
}


@pytest.fixture
def omniglot(tmp_path: Path) -> Path:
    root = tmp_path / "omniglot"
    for folder, alphabets in OMNIGLOT.items():
        for alphabet, characters in alphabets.items():
            for character in characters:
                for drawer in (1, 2):
                    place = root / folder / alphabet / character / f"0394_{drawer:02}.png"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("1", (105, 105), drawer - 1).save(place)
    return root


def test_characters_are_classes_of_their_alphabet_and_an_alphabet_is_read_once(omniglot):
    dataset = read("omniglot", omniglot)
    assert (dataset.name, dataset.root) == ("omniglot", omniglot)
    assert dataset.class_names == (
        "Greek.character01",
        "Greek.character02",
        "Korean.character01",
        "Tagalog.character01",
    )
    assert dataset.coarse_classes == ("Greek", "Greek", "Korean", "Tagalog")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert dataset.paths[:2] == (
        "images_background_small1/Greek/character01/0394_01.png",
        "images_background_small1/Greek/character01/0394_02.png",
    )
    assert dataset.parts is None
    assert dataset.columns == {"drawer": ("01", "02") * 4}


def test_what_a_mac_hides_beside_a_drawing_is_no_image(omniglot):
    dataset = read("omniglot", omniglot)
    for path in dataset.paths:
        (omniglot / path).with_name(f"._{Path(path).name}").write_bytes(b"\x00\x05\x16\x07")
    assert read("omniglot", omniglot).paths == dataset.paths


def test_a_split_by_drawers_asks_about_the_handwriting_of_others(omniglot):
    dataset = read("omniglot", omniglot)
    split = make_split(dataset, method="grouped", group="drawer", test_fraction=0.5, seed=1)
    drawers = np.array(dataset.columns["drawer"])
    assert set(drawers[split.train]).isdisjoint(drawers[split.test])
    for part in (split.train, split.test):
        assert np.unique(dataset.labels[part]).tolist() == [0, 1, 2, 3]


def test_drawings_of_one_bit_are_decoded_to_black_and_white(omniglot):
    dataset = read("omniglot", omniglot)
    levels = [np.unique(decode(omniglot / path)).tolist() for path in dataset.paths[:2]]
    assert levels == [[0], [255]]


def test_a_missing_folder_of_characters_is_refused_with_the_way_to_get_it(omniglot):
    shutil.rmtree(omniglot / "images_background_small2")
    assert refusal("omniglot", omniglot) == (
        "HERE lacks images_background_small2: dml-bench data fetch omniglot --data-dir DIR"
        " downloads it"
    )


# Flowers


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    root = tmp_path / "Image-classifier"
    for class_id, photos in {"1": [6734], "2": [5087, 5090], "10": [7086, 7087, 8090]}.items():
        for photo in photos:
            photograph(root / "flowers" / "train" / class_id / f"image_{photo:05}.jpg")
    names = {"10": "globe thistle", "2": "bishop of llandaff", "1": "pink primrose", "3": "peony"}
    (root / "cat_to_name.json").write_text(json.dumps(names))
    return root


def test_flowers_have_the_names_of_their_ids_and_a_single_photo_is_no_class(flowers):
    dataset = read("flowers102_part", flowers)
    assert dataset.class_names == ("bishop of llandaff", "globe thistle")
    assert [
        (Path(path).name, label) for path, label in zip(dataset.paths, dataset.labels, strict=True)
    ] == [
        ("image_07086.jpg", 1),
        ("image_07087.jpg", 1),
        ("image_08090.jpg", 1),
        ("image_05087.jpg", 0),
        ("image_05090.jpg", 0),
    ]
    assert dataset.parts is None


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            '{"1": "pink primrose", "2": "peony"}',
            "classes without a name in HERE/cat_to_name.json: 1 (first: 10); restore it",
        ),
        ('["peony"]', "cat_to_name.json can't be read: it must be a table, got a list: restore it"),
        ("", "HERE/cat_to_name.json can't be read: it is empty: restore it"),
    ],
)
def test_a_list_of_flowers_that_lacks_a_name_is_refused(flowers, names, problem):
    (flowers / "cat_to_name.json").write_text(names)
    assert problem in refusal("flowers102_part", flowers)


# All of them


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("cars196", "car_ims"),
        ("cars196", "cars_train"),
        ("cars196_train", "training_cars"),
        ("sop", "sop"),
        ("inshop", "inshop"),
        ("grocery", "grocery"),
        ("omniglot", "omniglot"),
        ("flowers102_part", "flowers"),
    ],
)
def test_a_published_data_set_is_found_in_the_parent_folder_and_reads_the_same(
    name, fixture, request
):
    root = request.getfixturevalue(fixture)
    (root.parent / "notes").mkdir()
    assert read(name, root.parent).fingerprint == read(name, root).fingerprint


@pytest.mark.parametrize(
    ("name", "fixture"), [("cars196", "car_ims"), ("sop", "sop"), ("inshop", "inshop")]
)
def test_a_parent_folder_with_two_copies_is_refused_with_both_names(name, fixture, request):
    root = request.getfixturevalue(fixture)
    shutil.copytree(root, root.parent / "a copy")
    assert (
        refusal(name, root.parent)
        == f"HERE holds {name} 2 times ({', '.join(sorted([root.name, 'a copy']))}): give the one"
        " that is meant with --data-dir"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_data_set_that_is_not_there_is_refused_with_the_way_to_get_it(name, tmp_path):
    assert "is missing)" in refusal(name, tmp_path)
    obtain = {
        "cars196": "https://github.com/pytorch/vision/issues/7545",
        "cars196_train": "dml-bench data fetch cars196_train --data-dir",
        "cub": "dml-bench data fetch cub --data-dir",
        "flowers102_part": "dml-bench data fetch flowers102_part --data-dir",
        "grocery": "dml-bench data fetch grocery --data-dir",
        "inshop": "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        "omniglot": "dml-bench data fetch omniglot --data-dir",
        "sop": "https://cvgl.stanford.edu/projects/lifted_struct",
    }[name]
    assert obtain in refusal(name, tmp_path)
    with pytest.raises(
        ValueError, match=f"dataset {name} needs a folder of images: give it with --data-dir DIR; "
    ) as caught:
        open_dataset(Component(name), None, tmp_path)
    assert obtain in str(caught.value)


def test_only_published_data_sets_say_how_to_get_them():
    assert tuple(entry.name for entry in datasets if entry.facts["obtain"]) == PUBLISHED


def test_parts_with_classes_of_their_own_are_no_split_for_a_precision_drop(sop, inshop):
    with pytest.raises(ValueError, match="2 classes have no training image"):
        make_split(read("sop", sop), method="given", test_fraction=0.2, seed=1)
    with pytest.raises(ValueError, match="inshop has no train and test parts of its own"):
        make_split(read("inshop", inshop), method="given", test_fraction=0.2, seed=1)


def test_a_data_set_without_some_images_keeps_their_parts_apart(inshop):
    assert read("inshop", inshop).without({0, 2}).parts == ("query", "train", "query", "gallery")
