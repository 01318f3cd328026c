"""What wandb logged offline, as its own reader finds it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def sealed_environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB", "XDG_", "NETRC"))
    }
    return kept | {"HOME": str(home), "WANDB_ERROR_REPORTING": "false"} | extra


def read_back(wandb_folder: Path, home: Path) -> list[dict[str, Any]]:
    """The records that wandb's own reader finds in one run's folder, once its end is there: where
    this process logged, wandb's own process writes on for a moment after `finish`."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(wandb_folder)]
    deadline = time.monotonic() + 60
    while True:
        text = subprocess.run(
            command,
            env=sealed_environment(home),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        records = [json.loads(line) for line in text.splitlines()]
        if of_type(records, "exit") or time.monotonic() > deadline:
            return records
        time.sleep(0.1)


def of_type(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [record[name] for record in records if record["type"] == name]
