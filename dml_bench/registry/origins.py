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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
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
    "imported_digest",
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
    """Of that file as it was imported; where there is none, of what was typed in (`typed_in`)."""
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
    except OSError:  # of a class in a notebook
        file = ""
    except TypeError:
        raise ValueError(
            f"{module}:{attribute} is not written in Python: wrap it in a function of your own"
        ) from None
    if not Path(file).is_file():
        digest = hashlib.sha256("\n".join(typed_in(function)).encode()).hexdigest()
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


def typed_in(function: Callable[..., Any]) -> list[str]:
    """The source of a function of a notebook, then that of the functions and classes of the same
    notebook that it uses, and the plain values: another cell may hold most of a plug-in."""
    texts: list[str] = []
    waiting: list[Any] = [function]
    known: list[Any] = []  # kept, so that no other value gets the place of one in memory
    while waiting:
        value = inspect.unwrap(waiting.pop(0))
        is_known = any(value is other for other in known)
        if is_known or not isinstance(value, type | FunctionType):
            continue
        known.append(value)
        texts.append(source_of(value))
        for name, used in sorted(names_used_by(value), key=lambda pair: pair[0]):
            if isinstance(used, type | FunctionType):
                waiting += [used] if used.__module__ == function.__module__ else []
            elif is_plain(used):
                texts.append(f"{name} = {used!r}")
    return texts


def source_of(value: Any) -> str:
    """As it was typed; of a function of which no text was kept, what was compiled of it. A class is
    known by what it holds."""
    if isinstance(value, type):
        return f"class {value.__qualname__} of {[base.__qualname__ for base in value.__bases__]}"
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        name = f"{value.__module__}:{value.__qualname__}"
        constants = [constant for constant in value.__code__.co_consts if is_plain(constant)]
        return f"{name} {value.__code__.co_code.hex()} {constants}"


def names_used_by(value: Any) -> Iterator[tuple[str, Any]]:
    """Of a function the globals and the values around it that it names, of a class its bases and
    what it holds."""
    if isinstance(value, type):
        yield from ((f"base {base.__qualname__}", base) for base in value.__bases__)
        for name, held in vars(value).items():
            function = held.fget if isinstance(held, property) else held
            is_named = not name.startswith("__")  # unlike the line where the class begins
            if is_named or isinstance(function, FunctionType):
                yield name, getattr(function, "__func__", function)
        return
    yield from closure_of(value)
    codes = [value.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            if name in value.__globals__:
                yield name, value.__globals__[name]


def closure_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it has no value so far
            yield name, cell.cell_contents


def is_plain(value: Any) -> bool:
    """Whether it is written the same way in every process."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


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
    except (Exception, SystemExit) as problem:
        raise cannot_be_imported(module, problem) from problem


def require_module_name(module: str) -> None:
    if not MODULE.fullmatch(module):
        raise ValueError(
            f"{module!r} is no module: name one like my_package.losses, or the path of a .py file"
        )


def cannot_be_imported(module: str, problem: BaseException) -> ValueError:
    reason = str(problem).partition("\n")[0]
    remedy = "install its package or mend it"
    if isinstance(problem, ImportError) and module.endswith(".py"):
        remedy += "; a module beside it is found by `import NAME` where PYTHONPATH has their folder"
    return ValueError(
        f"plug-in {module} can't be imported ({type(problem).__name__}: {reason}): {remedy}"
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
    name = name_of_module(path)
    if _imported_digests.get(name) == digest:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name], _imported_digests[name] = module, digest
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as problem:  # a script may end the program that imports it
        del sys.modules[name], _imported_digests[name]
        raise cannot_be_imported(str(path), problem) from problem
    return module


def name_of_module(path: Path) -> str:
    """Of a module that is imported by the path of its file."""
    return f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def imported_digest(path: Path) -> str:
    """SHA-256 of a .py file as it was imported by its path; empty where it was not."""
    return _imported_digests.get(name_of_module(path.resolve()), "")


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
