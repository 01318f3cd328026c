"""Executes what a Dockerfile executes, in a clean folder and without Docker: each stage has a root
of its own below that folder, in which COPY, ENV, ARG, WORKDIR and RUN mean what they say there.

`python tests/run_dockerfile.py FOLDER [ARG=VALUE]...` builds ./Dockerfile and ends by running its
ENTRYPOINT with its CMD. ARG=VALUE replaces a value of ARG or ENV. Nothing stands in for the base
image and the user of the container: `python` is the one that runs this, in an environment of its
own, and caches and settings of the network are this machine's.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = re.compile(r"CERT|SSL|PROXY|INDEX|CACHE_DIR|^PIP_|^CURL_", re.IGNORECASE)
KEYWORDS = ("FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD")


@dataclass
class Stage:
    """What the instructions of a stage have made so far."""

    root: Path
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def place(self, path: str) -> Path:
        """Where a path of the image is: absolute, or below the working directory."""
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def variables(self) -> dict[str, str]:
        """The environment of a command of the image."""
        base = {"PATH": f"{self.root}/usr/local/bin:/usr/bin:/bin", "HOME": str(self.root / "root")}
        network = {name: value for name, value in os.environ.items() if NETWORK.search(name)}
        environment = network | base | {"LANG": "C.UTF-8"} | self.arguments
        for name, value in self.environment.items():
            environment[name] = self.rooted(value).replace("$PATH", base["PATH"])
        return environment

    def rooted(self, text: str) -> str:
        """Paths of the image's own folders, as paths below the root of this stage."""
        return re.sub(r"(?<![\w./$}])/(?=(?:opt|src|data)\b)", f"{self.root}/", text)

    def run(self, command: list[str]) -> None:
        folder = self.place(".")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, cwd=folder, env=self.variables(), check=True)


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction; comments are gone, continued lines are joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    parts = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    unknown = {keyword for keyword, _, _ in parts} - set(KEYWORDS)
    if unknown:
        raise ValueError(
            f"unknown instructions {sorted(unknown)}: add them to {Path(__file__).name}"
        )
    return [(keyword, rest.strip()) for keyword, _, rest in parts]


def in_context(context: Path) -> list[Path]:
    """The files that .dockerignore lets into the build."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*", "everything is left out, but for what begins with !"
    kept = [line[1:] for line in lines if line.startswith("!")]
    left_out = [line.rpartition("/")[2] for line in lines[1:] if not line.startswith("!")]
    files = []
    for top in kept:
        place = context / top
        files += [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for path in files if path.is_file() and not is_left_out(path, left_out)]


def is_left_out(path: Path, names: list[str]) -> bool:
    """Whether the file or a folder above it bears one of these names."""
    return any(fnmatch.filter(path.parts, name) for name in names)


def copy_context(context: Path, target: Path) -> None:
    for path in in_context(context):
        place = target / path.relative_to(context)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def copy(rest: str, context: Path, stage: Stage, stages: dict[str, Stage]) -> None:
    """COPY of the whole context, or of one folder of an earlier stage."""
    if not rest.startswith("--from="):
        assert rest == ". ."
        copy_context(context, stage.place("."))
        return
    name, source, target = rest.removeprefix("--from=").split()
    made, place = stages[name].place(source), stage.place(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    made.rename(place)
    made.symlink_to(place)  # its scripts name the place where they were installed


def build(dockerfile: Path, folder: Path, values: dict[str, str]) -> Stage:
    """Execute all stages below `folder`, which must not exist, and return the last one."""
    folder.mkdir(parents=True)
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for keyword, rest in instructions(dockerfile.read_text(encoding="utf-8")):
        if keyword == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            stage = stages[name] = Stage(folder / name)
            venv.create(stage.root / "usr/local", with_pip=True)
        elif keyword in {"ARG", "ENV"}:
            kept = stage.arguments if keyword == "ARG" else stage.environment
            for pair in rest.split():
                name, _, value = pair.partition("=")
                kept[name] = values.get(name, value)
        elif keyword == "WORKDIR":
            stage.folder = rest
        elif keyword == "COPY":
            copy(rest, dockerfile.parent, stage, stages)
        elif keyword == "RUN":
            print(f"RUN {rest}", flush=True)
            command = re.sub(r"--mount=\S+ +", "", rest)
            stage.run(["/bin/sh", "-ec", stage.rooted(command)])
        elif keyword in {"ENTRYPOINT", "CMD"}:
            stage.commands[keyword] = json.loads(rest)
    return stage


def main() -> None:
    folder, *pairs = sys.argv[1:]
    values = dict(pair.split("=", 1) for pair in pairs)
    last = build(Path("Dockerfile").resolve(), Path(folder).resolve(), values)
    last.run([*last.commands["ENTRYPOINT"], *last.commands["CMD"]])


if __name__ == "__main__":
    main()
