"""The source domain: a softmax classifier on drawn species that no benchmark uses, whose backbone is then transferred.

It stands in for ImageNet where no weights can be downloaded: real transfer learning with the experiment's own backbone.
"""

import hashlib
import json
from pathlib import Path

from torch import Tensor

from dml_bench.config import Component, Experiment, Pretrain, as_table, load
from dml_bench.data.datasets import open_dataset
from dml_bench.data.sources import open_pixels
from dml_bench.data.split import Phase, make_split
from dml_bench.files import write_atomically
from dml_bench.training import loop, state
from dml_bench.training.run import build, choose_precision
from dml_bench.training.watch import Watch

__all__ = ["source_experiment", "source_weights"]

FORMAT = 1


def source_experiment(experiment: Experiment) -> Experiment:
    """The classifier that makes the `source` weights for this experiment's backbone and image size."""
    recipe, size = experiment.pretrain or Pretrain(), experiment.images.size
    species = {
        "name": "source_species",
        "classes": recipe.classes,
        "per_class": recipe.per_class,
        "size": size * 9 // 8,
        "seed": recipe.seed,
    }
    return load(
        {
            "name": "source",
            "seed": recipe.seed,
            "data": {"dataset": species},
            "images": {"size": size},
            "augment": {"random_crop_from": size * 9 // 8, "horizontal_flip": 0.5},
            "model": {"backbone": component_table(experiment.model.backbone), "weights": "none", "head": "identity"},
            "loss": "crossentropy",
            "optimizer": {"name": "sgd", "lr": recipe.lr, "momentum": 0.9, "weight_decay": 5e-4},
            "train": {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "precision": experiment.train.precision},
            "evaluate": {"every": recipe.epochs},
        }
    )


def component_table(component: Component) -> dict[str, object]:
    return {"name": component.name, **component.options}


def source_weights(experiment: Experiment, cache_dir: Path, *, device: str, watch: Watch) -> dict[str, Tensor]:
    """The backbone's state dict, trained once per recipe and kept in `cache_dir`; resumes after an interruption."""
    from filelock import FileLock
    from safetensors.torch import load_file, save

    from dml_bench.training.run import choose_device

    source = source_experiment(experiment)
    on = choose_device(device)
    precision = choose_precision(source.train.precision, on)
    key = hashlib.sha256(json.dumps([FORMAT, precision, as_table(source)], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / "pretrained"
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{source.model.backbone.name.replace(':', '_')}-{key}.safetensors", folder / f"{key}.state.pt"
    with FileLock(folder / f".{key}.lock"):
        if path.exists():
            return load_file(path)
        watch.note(
            f"no pretrained backbone in {folder} yet: training one on {source.data.dataset.options['classes']} other drawn species, once"
        )
        dataset = open_dataset(source.data.dataset, None, cache_dir, watch.progress)
        split = make_split(dataset, method="stratified", test_fraction=source.data.test_fraction, seed=source.seed)
        pixels = open_pixels(source, dataset, cache_dir, on, watch.progress)
        run = build(source, Phase("source"), dataset, split, pixels, device=on, precision=precision, watch=watch)
        if unfinished.exists():
            state.load(run, unfinished)
        left = source.train.epochs - len(run.records)
        watch.work(3 * len(run.images) * left + len(split.train) + len(split.test))
        watch.phase("source", source.train.epochs, len(run.images))
        loop.fit(run, lambda run: state.save(run, unfinished))
        weights = {name: tensor.cpu().contiguous() for name, tensor in run.embedder.backbone.state_dict().items()}
        write_atomically(path, lambda file: file.write(save(weights)))
        unfinished.unlink(missing_ok=True)
    return weights
