"""How images become a network's input, as a file to ship with it: the code with which the run was
measured."""

import inspect
import re
from types import ModuleType

from dml_bench.data import cache, images
from dml_bench.system import files
from dml_bench.version import __version__

__all__ = ["source"]

HEAD = """# How image files become the input of {network}, and how gallery.csv is read. Needs
# only Pillow and NumPy. Written by dml-bench {version} from its own code, so that photos are
# decoded as they were when the network was measured.
"""
IMPORTS = """import csv
import re
from dataclasses import dataclass
from typing import Literal
"""
TAIL = '''VIEW = View({fit!r}, {size}, {crop_from}, {interpolation!r})


def pixels(path: str) -> np.ndarray:
    """(size, size, 3) uint8. Raises Unreadable, which names the file and what is wrong with it."""
    return VIEW.apply(decode(Path(path)))
'''


def source(view: cache.View, network: str) -> str:
    """Python that defines `pixels(path)` for a view, and `read_csv(path)`; `network` is the name of
    the network's file."""
    parts = [
        HEAD.format(version=__version__, network=network),
        inspect.getsource(images),
        IMPORTS,
        with_constants(cache, cache.View),
        with_constants(files, files.read_csv),
        TAIL.format(
            fit=view.fit,
            size=view.size,
            crop_from=view.crop_from,
            interpolation=view.interpolation,
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def with_constants(module: ModuleType, thing: object) -> str:
    """The source of a class or a function, after that of the constants of its module that it
    uses."""
    text = inspect.getsource(thing)  # type: ignore[arg-type]
    lines = []
    for name, value in vars(module).items():
        if name.isupper() and re.search(rf"\b{name}\b", text):
            lines.append(f"{name} = {value!r}")
    return "\n".join([*lines, "", "", text])
