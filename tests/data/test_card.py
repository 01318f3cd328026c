"""Cards of data sets: what is known before they are on this machine, and what a folder has."""

import json

import numpy as np
import pytest
from PIL import Image

import dml_bench as db
from dml_bench.data.card import card_of, terms
from dml_bench.data.publications import PUBLICATIONS
from dml_bench.registry import UnknownName, datasets


def rows(name: str, data_dir=None) -> dict[str, str]:
    return dict(card_of(name, data_dir).rows())


@pytest.mark.parametrize("entry", list(datasets), ids=lambda entry: entry.name)
def test_every_data_set_has_a_card_that_is_plain_values_too(entry):
    card = db.data_card(entry.name)
    assert card.rows()[0] == ("what", entry.summary)
    assert json.loads(json.dumps(card.as_dict()))["name"] == entry.name
    assert "\n" not in str(card.rows())


def test_the_card_of_a_published_data_set_says_size_parts_licence_citation_origin_and_digest():
    card = rows("grocery")
    assert card["images"] == "5,421"
    settings, why = card["divide by"].split("; ")
    assert settings == "--set data.split=given"
    assert why == "a random split puts photos of one session, or person, on both sides"
    assert card["classes"] == "81 of 43 coarse classes"
    assert card["parts"].startswith("train 2,640, valid 296, test 2,485")
    assert card["licence"] == "MIT, the images included"
    assert "WACV, 2019" in card["source"]
    assert "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc" in card["from"]
    assert card["download"] == "dml-bench data fetch grocery --data-dir DIR (120 MB)"
    assert card["fingerprint"].startswith(PUBLICATIONS["grocery"].fingerprint)
    assert card["here"] == "not looked for: --data-dir DIR says where"


def test_the_card_of_a_data_set_without_a_download_names_the_files_to_get_by_hand():
    assert rows("inshop")["download"] == (
        "by hand: img.zip and list_eval_partition.txt; then dml-bench data fetch inshop --data-dir"
        " DIR --archive FILE, once for each"
    )


def test_a_card_says_whether_the_data_set_is_in_a_folder(tmp_path):
    assert rows("grocery", tmp_path / "gone")["here"].endswith("there is no such folder")
    assert "classes.csv is missing" in rows("grocery", tmp_path)["here"]


def test_a_card_of_own_images_counts_them(tmp_path):
    for part in ("train", "test"):
        for class_name in ("auk", "wren"):
            place = tmp_path / part / class_name / "1.png"
            place.parent.mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(place)
    card = rows("folder", tmp_path)
    assert card["here"] == f"in {tmp_path}: 4 images, 2 classes"
    assert card["parts here"] == "test 2, train 2"
    assert len(card["fingerprint here"]) == 64


def test_a_card_says_how_to_divide_what_a_random_split_would_leak():
    assert rows("omniglot")["divide by"].startswith(
        "--set data.split=grouped --set data.group=drawer;"
    )
    for name in ("cub", "cars196", "sop", "inshop"):
        assert "divide by" not in rows(name), "photos of no known session"


def test_images_that_differ_from_the_published_ones_are_not_called_the_data_set(tmp_path):
    for folder, alphabet in (("small1", "Greek"), ("small2", "Tagalog")):
        place = tmp_path / f"images_background_{folder}" / alphabet / "character01" / "1_01.png"
        place.parent.mkdir(parents=True)
        Image.new("1", (105, 105)).save(place)
    here = rows("omniglot", tmp_path)["here"]
    assert here == (
        f"in {tmp_path}, but not as published: 4,840 images are published, and 2 are there"
    )


def test_licence_and_citation_are_said_before_anything_is_downloaded():
    lines = terms("omniglot")
    assert lines[1] == "Licence: MIT"
    assert lines[2].startswith("Cite: Lake, Salakhutdinov, Tenenbaum")
    with pytest.raises(UnknownName, match=r"'groceries' can't be fetched \(did you mean grocery\?"):
        terms("groceries")
