"""The package as people install it: built as sdist and wheel, in environments of their own, on each
supported Python, with each extra alone. Everything here takes minutes, for PyTorch is installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import SETTINGS

from dml_bench import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parent.parent
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED = {
    "browse": "fiftyone, umap",
    "encoders": "open_clip, sentence_transformers, transformers",
    "fonts": "manimgx_fonts",
    "lite": "importlib.util",
    "lora": "peft",
    "onnx": "onnx, onnxruntime, onnxscript",
    "ray": "ray",
    "serve": "fastapi, multipart, prometheus_client, uvicorn",
    "stores": "lancedb, pgvector, psycopg, pyarrow, qdrant_client",
    "tune": "optuna",
}
"""What each extra makes importable."""
Install = Callable[..., Path]


def call(*command: object, cwd: Path) -> str:
    """What a command prints; it must end well."""
    names = ("PYTHONPATH", "VIRTUAL_ENV", "UV_COMPILE_BYTECODE")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | {"COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the sdist, and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(UV, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture
def install(built, tmp_path) -> Iterator[Install]:
    """Installs the wheel with the pinned packages and returns its `bin`; gone after the test, for
    an environment holds six gigabytes of links."""
    (wheel,) = built.glob("*.whl")

    def into(python: str, extra: str = "") -> Path:
        call(UV, "venv", "--quiet", "--python", python, tmp_path / "venv", cwd=tmp_path)
        program = tmp_path / "venv" / "bin" / "python"
        what = f"{wheel}[{extra}]" if extra else wheel
        options = ("--quiet", "--python", program, "--constraint", ROOT / "requirements.txt")
        call(UV, "pip", "install", *options, what, cwd=tmp_path)
        return program.parent

    yield into
    shutil.rmtree(tmp_path / "venv")


def python_of(version: str) -> str:
    """A Python of this version on this machine."""
    by_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    program = shutil.which(f"python{version}")
    if sys.version.startswith(f"{version}."):
        return sys.executable
    for candidate in [*map(str, by_pyenv), *([program] if program else [])]:
        printed = subprocess.run([candidate, "--version"], check=False, capture_output=True)
        if printed.returncode == 0:
            return candidate
    pytest.skip(f"no Python {version} on this machine")


def test_the_sdist_has_what_the_wheel_is_built_from_and_no_records(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"dml_bench", "experiments"}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert sdist.stat().st_size < 1_500_000


def test_the_wheel_has_the_package_with_its_experiments_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        metadata = packed.read(f"dml_bench-{__version__}.dist-info/METADATA").decode()
    assert {name.split("/")[0] for name in names} == {
        "dml_bench",
        f"dml_bench-{__version__}.dist-info",
    }
    assert "dml_bench/_experiments/EPSHN_cosine_resnet18_sgd_aug.toml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".png", ".jpg"))]
    assert f"Requires-Python: {PROJECT['requires-python']}" in metadata


def test_the_sdist_alone_installs(built, install, tmp_path):
    programs = install(sys.executable)
    (sdist,) = built.glob("*.tar.gz")
    again = ("--no-deps", "--reinstall-package", "dml-bench")
    call(UV, "pip", "install", "--python", programs / "python", *again, sdist, cwd=tmp_path)
    assert call(programs / "dml-bench", "--version", cwd=tmp_path) == f"dml-bench {__version__}\n"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_on_each_python_it_draws_trains_recognises_and_exports(version, install, tmp_path):
    program = install(python_of(version)) / "dml-bench"
    draw = ("--out", "birds", "--classes", "8", "--per-class", "8", "--size", "40")
    call(program, "data", "draw", *draw, cwd=tmp_path)
    settings = [part for value in (*SETTINGS, "name=tiny") for part in ("--set", value)]
    (birds,) = (path.parent for path in (tmp_path / "birds").rglob("images.txt"))
    places = ("--data-dir", birds, "--cache-dir", "cache", "--device", "cpu")
    experiment = "EPSHN_cosine_resnet18_sgd_aug"
    call(program, "run", experiment, *settings, *places, cwd=tmp_path)
    (run,) = (path.parent for path in tmp_path.glob("runs/*/*/*/summary.json"))
    photo = sorted(birds.rglob("*.jpg"))[0]
    assert "similarity" in call(program, "predict", run, photo, "--json", cwd=tmp_path)
    call(program, "export", run, "--out", "model", cwd=tmp_path)
    assert (tmp_path / "model" / "embedder.pt2").is_file()


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_each_extra_installs_alone_and_brings_what_it_is_for(extra, install, tmp_path):
    programs = install(sys.executable, extra)
    checked = (
        f"import {IMPORTED[extra]}\n"
        "from dml_bench.cli.doctor import missing_packages\n"
        f"assert missing_packages({extra!r}) == []\n"
        "import dml_bench\nprint(dml_bench.__version__)\n"
    )
    assert call(programs / "python", "-c", checked, cwd=tmp_path).endswith(f"{__version__}\n")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_instructions_of_the_dockerfile_run_in_a_clean_folder(device, tmp_path):
    script = ROOT / "tests" / "run_dockerfile.py"
    values = (f"DEVICE={device}", "EXTRAS=lite,serve", "UV_COMPILE_BYTECODE=0")
    image = tmp_path / "image"
    try:
        printed = call(sys.executable, script, image, *values, cwd=ROOT)
        packages = {path.name for path in image.glob("last/opt/dml-bench/lib/*/site-packages/*")}
    finally:
        shutil.rmtree(image, ignore_errors=True)
    assert printed.rstrip().splitlines()[-1]
    assert "Usage: dml-bench" in printed
    assert ("triton" in packages) == (device == "gpu")
