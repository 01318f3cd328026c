"""What makes an image a vector, as one digest: vectors of two models can't be compared."""

import hashlib
import json
from dataclasses import asdict

from dml_bench.config.loader import as_table
from dml_bench.data.cache import view_of
from dml_bench.runs.run import Run

__all__ = ["embedder_digest"]


def embedder_digest(run: Run, phase: str) -> str:
    """SHA-256 of weights, network, view of images and test-time views. Weights alone don't tell two
    runs apart that train none at two image sizes."""
    parts = {
        "weights": run.weights_digest(phase),
        "model": as_table(run.experiment)["model"],
        "images": asdict(view_of(run.experiment.images)),
        "tta": run.experiment.evaluate.tta,
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
