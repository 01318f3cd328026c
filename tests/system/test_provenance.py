"""Where a result was made is said so that two machines are not taken for one."""

import platform
from pathlib import Path

import pytest

from dml_bench.system.provenance import processor, says_generation

GENERIC = """processor\t: 0
cpu family\t: {family}
model\t\t: {model}
model name\t: AMD EPYC
processor\t: 1
cpu family\t: 99
model\t\t: 99
model name\t: another
"""


def listing(folder: Path, text: str) -> Path:
    file = folder / "cpuinfo"
    file.write_text(text)
    return file


@pytest.mark.parametrize(("family", "model"), [(25, 17), (26, 2)])
def test_generations_that_a_virtual_machine_calls_by_one_name_are_told_apart(
    family, model, tmp_path
):
    """Of two machines called AMD EPYC one trained twice as fast, and reports compared them."""
    text = GENERIC.format(family=family, model=model)
    assert processor(listing(tmp_path, text)) == f"AMD EPYC (family {family}, model {model})"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("AMD EPYC", False),
        ("Intel(R) Xeon(R) Processor", False),
        ("AMD EPYC (family 26, model 2)", True),
        ("AMD EPYC 7763 64-Core Processor", True),
        ("", False),
    ],
)
def test_a_name_alone_may_not_tell_generations_apart(name, known):
    assert says_generation(name) is known


def test_a_processor_without_a_family_has_its_name(tmp_path):
    assert processor(listing(tmp_path, "model name\t: Cortex-A76\n")) == "Cortex-A76"


def test_where_nothing_is_listed_the_system_says_it(tmp_path):
    assert processor(tmp_path / "none") == platform.processor()
