"""What a folder needs to be a model of the Hugging Face Hub besides its files: config.json, and the
head of the model card from which the Hub reads licence, tags and results."""

import math
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from dml_bench.config.loader import as_table
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.store import Gallery
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.runs.run import Run

__all__ = ["card_head", "hub_config"]

TASK = "image-feature-extraction"


def hub_config(run: Run, phase: str, gallery: Gallery) -> dict[str, Any]:
    """What config.json says: sizes and class names by the names that transformers gives them, and
    the experiment."""
    return {
        "model_type": "dml-bench",
        "image_size": run.experiment.images.size,
        "hidden_size": gallery.embeddings.shape[1],
        "id2label": {str(label): name for label, name in enumerate(gallery.class_names)},
        "label2id": gallery.class_ids,
        "phase": phase,
        "embedder": embedder_digest(run, phase),
        "experiment": as_table(run.experiment),
    }


def card_head(run: Run) -> str:
    """The YAML at the top of a model card. Its licence is for the person to choose who publishes
    the model. Results have their 95% intervals as arguments."""
    name, dataset = run.experiment.name, run.summary["dataset"]["name"]
    results = []
    for key, metric in metrics_of(run.experiment).items():
        value = measure([run], key)
        if math.isnan(value.estimate):
            continue
        bounds = [round(value.low, 4), round(value.high, 4)]
        measured: dict[str, Any] = {"seed": run.seed, "split": run.experiment.data.described_split}
        if not math.isnan(value.low):
            measured["interval_95"] = bounds
        results.append(
            EvalResult(
                task_type=TASK,
                task_name="nearest-neighbour retrieval",
                dataset_type=run.experiment.data.dataset.name,
                dataset_name=dataset,
                dataset_revision=run.summary["dataset"]["fingerprint"],
                metric_type=key,
                metric_name=metric.description,
                metric_value=round(value.estimate, 4),
                metric_args=measured,
            )
        )
    head = ModelCardData(
        license="other",
        license_name="not-chosen-yet",
        library_name="pytorch",
        pipeline_tag=TASK,
        tags=[
            "metric-learning",
            "image-retrieval",
            "dml-bench",
            run.experiment.model.backbone.name,
        ],
        model_name=f"{name}, seed {run.seed}",
        eval_results=results,
    )
    return f"---\n{head}\n---\n"
