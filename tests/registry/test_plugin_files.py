"""Files with plug-ins: which of them a name means, also after they were changed."""

from pathlib import Path

import pytest
import torch

import dml_bench as db
from dml_bench.config import Component

pytestmark = pytest.mark.usefixtures("plugins_removed")

LOSS = """
import dml_bench as db


@db.register_loss("{name}", summary="a test")
def {function}(*, scale: float = {scale}):
    raise AssertionError("nothing is built")
"""


@pytest.fixture
def write(tmp_path):
    """Writes a file with a loss into a folder."""

    def path_of(file: str, name: str = "Mine", function: str = "mine", scale: float = 1.0) -> Path:
        path = tmp_path / file
        path.write_text(LOSS.format(name=name, function=function, scale=scale))
        return path

    return path_of


def loss_of(*files: Path, name: str = "Mine") -> Component:
    imports = f"plugins.imports={[str(file) for file in files]!r}"
    return db.resolve("EPSHN_cosine_resnet18_sgd_aug", [imports, f"loss={name}", "miner=none"]).loss


def test_an_experiment_with_two_files_of_one_name_is_refused(write):
    first, second = write("a.py"), write("b.py", scale=2.0)
    with pytest.raises(ValueError, match=f"loss Mine is in {first} and in {second}, and"):
        loss_of(first, second)
    assert loss_of(second, write("c.py", name="Other")).options == {"scale": 2.0}


def test_two_files_may_have_a_name_for_functions_that_are_called_otherwise(write):
    first, second = write("a.py"), write("b.py", function="yours", scale=2.0)
    assert loss_of(first).options == {"scale": 1.0}
    assert loss_of(second).options == {"scale": 2.0}
    assert loss_of(first).options == {"scale": 1.0}


def test_a_name_that_a_file_has_no_longer_is_unknown(write):
    file = write("a.py", name="Old")
    assert loss_of(file, name="Old").name == "Old"
    write("a.py", name="New")
    with pytest.raises(ValueError, match="unknown loss 'Old'"):
        loss_of(file, name="Old")
    assert loss_of(file, name="New").name == "New"


def test_what_a_file_registers_before_it_fails_is_unknown(write):
    file = write("a.py")
    content = file.read_text()
    file.write_text(f"{content}\n1 / 0\n")
    with pytest.raises(ValueError, match="a.py can't be imported .ZeroDivisionError"):
        loss_of(file)
    with pytest.raises(ValueError, match="unknown loss 'Mine'"):
        loss_of()
    file.write_text(content)
    assert loss_of(file).name == "Mine"


def test_a_file_that_ends_the_program_is_refused(write):
    file = write("a.py")
    file.write_text("raise SystemExit(3)")
    with pytest.raises(ValueError, match="a.py can't be imported .SystemExit: 3.: install its"):
        loss_of(file)


def test_a_module_beside_a_file_is_found_as_the_refusal_says(write, tmp_path, monkeypatch):
    file = write("a.py")
    file.write_text(f"import beside_it\n{file.read_text()}")
    (tmp_path / "beside_it.py").write_text("SCALE = 1.0\n")
    with pytest.raises(ValueError, match="is found by `import NAME` where PYTHONPATH has their"):
        loss_of(file)
    monkeypatch.syspath_prepend(tmp_path)
    assert loss_of(file).name == "Mine"


@pytest.mark.parametrize("default", [{1, 2}, torch.relu, Path("a"), b"text", [{"a": Path("a")}]])
def test_an_option_whose_default_no_file_can_keep_is_refused(default):
    with pytest.raises(ValueError, match="default of option wanted must be a number, text"):

        @db.register_loss(summary="a test")
        def mine(*, wanted=default): ...


def test_an_option_called_name_is_refused():
    with pytest.raises(ValueError, match="mine: an option can't be called name, by which files"):

        @db.register_loss(summary="a test")
        def mine(*, name: str = "text"): ...


def test_a_fact_of_another_type_is_refused_before_a_run_keeps_it():
    with pytest.raises(ValueError, match="'Mine': fact takes_miner must be of the type of False"):

        @db.register_loss("Mine", summary="a test", takes_miner="yes")
        def mine(): ...


@pytest.mark.parametrize("mean", [(0.5,), (127.0, 127.0, 127.0), 0.5, ("a", "b", "c")])
def test_a_mean_that_is_not_one_number_from_0_to_1_a_channel_is_refused(mean):
    with pytest.raises(ValueError, match="mean must be three numbers from 0 to 1, one for each"):
        db.register_backbone("Mine", summary="a test", mean=mean)


def test_a_mean_may_be_a_list():
    @db.register_backbone(summary="a test", mean=[0.5, 0.5, 0.5])
    def mine(): ...

    experiment = db.resolve(
        "EPSHN_cosine_resnet18_sgd_aug", {"model.backbone": "mine", "model.weights": "none"}
    )
    assert experiment.plugins.components[0].facts["mean"] == [0.5, 0.5, 0.5]
