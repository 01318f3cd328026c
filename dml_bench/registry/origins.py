"""Where a plug-in comes from: its module or file, with the SHA-256 of what was imported.

Nothing here is called with a name out of a run folder unless a person allowed it, see
`dml_bench.registry.plugins`.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dml_bench.system.files import sha256_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "REFERENCE",
    "Origin",
    "digest_of_module",
    "entry_points_of",
    "import_file",
    "import_module",
    "origin_of",
    "referenced",
]

REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
"""`package.module:function`."""
MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
FILE_MODULE = "dml_bench_plugin_"
"""Begins the names of modules that are imported by the path of their file."""

_imported_digests: dict[str, str] = {}
"""SHA-256 of the files that were imported by their path, by the name of the module."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where the function of a plug-in is defined."""

    module: str
    """Its importable module; empty where its file is imported by its path."""
    attribute: str
    """The function's name in the module."""
    file: str
    """Absolute path of the file that defines it; empty for a cell of a notebook."""
    sha256: str
    """Of that file as it was imported; of the function's source where there is no file."""
    distribution: str = ""
    """The installed package that brings it, if one does."""
    version: str = ""
    """The version of that package."""

    def describe(self) -> str:
        """For a table: `my_package 1.2 (my_package.losses)`, or the path of the file."""
        if self.distribution:
            return f"{self.distribution} {self.version} ({self.module})"
        return self.file or f"{self.module} (typed in)"


def origin_of(build: Callable[..., Any]) -> Origin | None:
    """None for this program's own functions. Raises ValueError for what is not written in
    Python."""
    function = inspect.unwrap(build)
    module = function.__module__ or "__main__"
    if module.split(".")[0] == "dml_bench":
        return None
    attribute = function.__qualname__
    if module in _imported_digests:
        file = str(sys.modules[module].__file__)
        return Origin(module="", attribute=attribute, file=file, sha256=_imported_digests[module])
    try:
        file = inspect.getsourcefile(function) or ""
    except TypeError:
        raise ValueError(
            f"{module}:{attribute} is not written in Python: wrap it in a function of your own"
        ) from None
    if not Path(file).is_file():
        digest = hashlib.sha256(source_of(function).encode()).hexdigest()
        return Origin(module=module, attribute=attribute, file="", sha256=digest)
    file = str(Path(file).resolve())
    distribution, version = distribution_of(module)
    return Origin(
        module="" if module == "__main__" else module,
        attribute=attribute,
        file=file,
        sha256=sha256_of(Path(file)),
        distribution=distribution,
        version=version,
    )


def source_of(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return f"{function.__module__}:{function.__qualname__}"


@cache
def distribution_of(module: str) -> tuple[str, str]:
    """Name and version of the installed package that a module belongs to; empty where none."""
    from importlib.metadata import packages_distributions, version

    packages = packages_distributions().get(module.split(".", maxsplit=1)[0], [])
    return (packages[0], version(packages[0])) if packages else ("", "")


def digest_of_module(module: str) -> str:
    """SHA-256 of a module's file, which is not imported, though the packages around it are. Raises
    ValueError where there is none."""
    require_module_name(module)
    try:
        spec = importlib.util.find_spec(module)
    except Exception as problem:
        raise cannot_be_imported(module, problem) from problem
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise ValueError(f"there is no module {module} here: install its package")
    return sha256_of(Path(spec.origin))


def import_module(module: str) -> ModuleType:
    """Raises ValueError, in one line, where it can't be imported."""
    require_module_name(module)
    try:
        return importlib.import_module(module)
    except Exception as problem:
        raise cannot_be_imported(module, problem) from problem


def require_module_name(module: str) -> None:
    if not MODULE.fullmatch(module):
        raise ValueError(
            f"{module!r} is no module: name one like my_package.losses, or the path of a .py file"
        )


def cannot_be_imported(module: str, problem: Exception) -> ValueError:
    reason = str(problem).partition("\n")[0]
    return ValueError(
        f"plug-in {module} can't be imported ({type(problem).__name__}: {reason}): install its"
        " package or mend it"
    )


def import_file(path: Path, sha256: str = "") -> ModuleType:
    """The module in a .py file, executed where it is new or was changed; with `sha256`, only if
    it has that digest.

    Raises ValueError, in one line, where it can't be read, is another file or fails.
    """
    path = path.resolve()
    try:
        source = path.read_bytes()
    except OSError as problem:
        raise ValueError(
            f"plug-in {path} can't be read: {problem.strerror}; correct its path"
        ) from None
    digest = hashlib.sha256(source).hexdigest()
    if sha256 and digest != sha256:
        raise ValueError(
            f"{path} has SHA-256 {digest[:12]}, not {sha256[:12]} as when the run was made: restore"
            " the file, or train again with --force"
        )
    name = f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if _imported_digests.get(name) == digest:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name], _imported_digests[name] = module, digest
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as problem:
        del sys.modules[name], _imported_digests[name]
        raise cannot_be_imported(str(path), problem) from problem
    return module


def referenced(reference: str) -> Callable[..., Any]:
    """What `package.module:function` names. Raises ValueError where there is no such function."""
    module, _, attribute = reference.partition(":")
    build = getattr(import_module(module), attribute, None)
    if not callable(build):
        raise ValueError(f"module {module} has no function {attribute}: correct {reference!r}")
    return build


@cache
def entry_points_of(group: str) -> "dict[str, EntryPoint]":
    """The entry points that installed packages have in a group, by name; nothing is imported."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
