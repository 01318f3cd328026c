"""The runs of runs.toml end in the bits that were recorded before the code was changed."""

import numpy as np
import pytest
import record
from safetensors.numpy import save_file

ALWAYS = ("class_holdout", "class_disjoint")
"""One run of each protocol; the others take a second each, the demo minutes."""
SLOW = (pytest.mark.slow, pytest.mark.timeout(3600))
RUNS = [pytest.param(name, marks=() if name in ALWAYS else SLOW) for name in record.run_arguments()]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_in_the_recorded_bits(name, scratch):
    if reason := record.reason_not_comparable():
        pytest.skip(reason)
    recorded = record.read_record().get(name)
    if recorded is None:
        pytest.skip(f"{record.path_of_record().name} doesn't hold {name}: record.py {name} adds it")
    folder = record.make(record.run_arguments()[name], scratch / "cache", scratch / name)
    assert record.differences(recorded, record.digests(folder)) == []


def test_each_part_that_is_not_as_recorded_is_named():
    recorded = {"predictions.csv": "1f04", "all/weights.safetensors": "0ed0", "split.csv": "edd6"}
    now = {"predictions.csv": "1f04", "all/weights.safetensors": "0ed1", "metrics.jsonl": "9fcc"}
    assert record.differences(recorded, recorded) == []
    assert record.differences(recorded, now) == [
        "all/weights.safetensors differs",
        "metrics.jsonl is new",
        "split.csv is missing",
    ]


def test_one_bit_of_one_weight_changes_the_digest_and_metadata_do_not(tmp_path):
    weights = {"layer.weight": np.float32([[1, 2], [3, 4]]), "layer.bias": np.float32([0])}
    changed = {**weights, "layer.bias": np.nextafter(np.float32([0]), np.float32(1))}
    save_file(weights, tmp_path / "weights", metadata={"made": "in the morning"})
    save_file(weights, tmp_path / "again", metadata={"made": "at night"})
    save_file(changed, tmp_path / "changed")
    digest = record.digest_of_tensors(tmp_path / "weights")
    assert record.digest_of_tensors(tmp_path / "again") == digest
    assert record.digest_of_tensors(tmp_path / "changed") != digest


def test_the_kind_of_split_beside_the_numbers_of_a_table_is_no_result(tmp_path):
    (tmp_path / "one").write_text("class name,all\nauk,0.5\n")
    (tmp_path / "two").write_text("class name,all,split\nauk,0.5,stratified\n")
    (tmp_path / "other").write_text("class name,all,split\nauk,0.6,stratified\n")
    one, two, other = (record.digest_of_table(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other


def test_a_tensor_of_another_name_or_shape_has_another_digest(tmp_path):
    values = np.arange(4, dtype=np.float32)
    save_file({"weight": values}, tmp_path / "vector")
    save_file({"weight": values.reshape(2, 2)}, tmp_path / "matrix")
    save_file({"proxies": values}, tmp_path / "proxies")
    files = ("vector", "matrix", "proxies")
    assert len({record.digest_of_tensors(tmp_path / name) for name in files}) == 3


def test_timings_and_places_stay_out_of_the_digests_and_numbers_do_not():
    one = {"train_loss": 0.3, "train_seconds": 1.5, "root": "/data", "cost": {"total_seconds": 2}}
    two = {"train_loss": 0.3, "train_seconds": 2.5, "root": "/mnt", "cost": {"total_seconds": 3}}
    assert record.digest_of_values([one]) == record.digest_of_values([two])
    assert record.digest_of_values([one]) != record.digest_of_values([{**one, "train_loss": 0.31}])
