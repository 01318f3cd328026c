"""The Dockerfile is read by the script that executes it, and takes from the repository what the
wheel is built from. tests/test_install.py executes it."""

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from run_dockerfile import in_context, instructions

ROOT = Path(__file__).parent.parent
PARTS = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def values(keyword: str) -> list[str]:
    return [rest for name, rest in PARTS if name == keyword]


def test_comments_go_and_continued_lines_are_one():
    assert instructions("# a\nRUN a \\\n  # why\n && b\nUSER 1\n") == [
        ("RUN", "a && b"),
        ("USER", "1"),
    ]
    with pytest.raises(ValueError, match="unknown instructions \\['HEALTHCHECK'\\]"):
        instructions("HEALTHCHECK NONE")


def test_the_build_takes_what_the_wheel_is_built_from_and_no_data():
    files = {str(path.relative_to(ROOT)) for path in in_context(ROOT)}
    tops = {name.partition("/")[0] for name in files}
    assert {"pyproject.toml", "README.md", "LICENSE", "dml_bench", "experiments"} <= tops
    assert {"requirements.txt", "requirements-gpu-only.txt"} <= tops
    assert tops.isdisjoint({"results", "reports", "tests", "runs", ".git", ".venv"})
    assert not any("__pycache__" in name for name in files)


def test_the_container_is_no_root_and_its_command_is_the_program():
    assert values("USER") == ["1000:1000"]
    assert values("ENTRYPOINT") == ['["dml-bench"]']
    assert "DEVICE=cpu" in values("ARG")


def test_packages_that_only_a_gpu_uses_are_pinned_ones():
    names = (ROOT / "requirements-gpu-only.txt").read_text(encoding="utf-8").split()
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line.partition("==")[0] for line in pinned}.issuperset(names)


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA packages are pinned for Linux")
def test_no_library_that_pytorch_loads_is_lost_with_a_package_that_only_a_gpu_uses():
    """An image without cuda-toolkit, which brings the others and holds nothing, lacked cuFile."""
    names = set((ROOT / "requirements-gpu-only.txt").read_text(encoding="utf-8").split())
    everything = brought("torch", set())
    assert "nvidia-cufile" in everything
    assert everything - brought("torch", names) <= names


def brought(package: str, left_out: set[str]) -> set[str]:
    """The packages that come with one, where these are left out."""
    seen: set[tuple[str, str]] = set()
    waiting = [(package, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name in left_out:
            continue
        seen.add((name, extra))
        for line in required_by(name):
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                other = canonicalize_name(needed.name)
                waiting += [(other, chosen) for chosen in ("", *needed.extras)]
    return {name for name, _ in seen}


def required_by(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:  # `make install-cpu` leaves some out
        return []
