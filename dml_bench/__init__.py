"""Deep metric learning benchmark: what an embedding and a nearest-neighbour look-up can do, and
what they lose on classes that they were not trained on.

>>> import dml_bench as db

The functions below do what the command line does. Their modules import what is heavy inside the
functions, so that the package itself is imported at once.
"""

from dml_bench.api.analyse import (
    Comparisons,
    EmbeddingsReport,
    ScatterReport,
    compare,
    evaluate,
    load_run,
    load_runs,
    log_to_wandb,
    measure_scatter,
    record_runs,
    sync_to_wandb,
    write_report,
)
from dml_bench.api.board import (
    Verification,
    submit_run,
    verify_submissions,
    write_leaderboard,
)
from dml_bench.api.cache import CacheEntry, cached, clear_cache
from dml_bench.api.data import channel_statistics, check_data, data_card, draw_birds, fetch_data
from dml_bench.api.decision import DecisionReport, decide
from dml_bench.api.discovery import (
    DiscoveredClasses,
    MeasuredDiscovery,
    discover,
    measure_discovery,
)
from dml_bench.api.explore import (
    DrawnMap,
    EmbeddingFiles,
    browse_run,
    draw_map,
    explain_run,
    export_decisions,
    forget_browsed,
    write_evidence,
)
from dml_bench.api.gallery import Gallery, GalleryMonitor, PhotoPredictions
from dml_bench.api.train import (
    draw_batches,
    find_learning_rate,
    plan_suite,
    plan_suites,
    resolve,
    run,
    run_suite,
    suite_commands,
    tune,
)
from dml_bench.registry.plugins import (
    allow_plugin,
    register_backbone,
    register_dataset,
    register_head,
    register_loss,
    register_miner,
    register_optimizer,
    register_sampler,
    register_schedule,
)
from dml_bench.system.callbacks import Callback, LoggingCallback
from dml_bench.version import __version__ as __version__

__all__ = [
    "CacheEntry",
    "Callback",
    "Comparisons",
    "DecisionReport",
    "DiscoveredClasses",
    "DrawnMap",
    "EmbeddingFiles",
    "EmbeddingsReport",
    "Gallery",
    "GalleryMonitor",
    "LoggingCallback",
    "MeasuredDiscovery",
    "PhotoPredictions",
    "ScatterReport",
    "Verification",
    "allow_plugin",
    "browse_run",
    "cached",
    "channel_statistics",
    "check_data",
    "clear_cache",
    "compare",
    "data_card",
    "decide",
    "discover",
    "draw_batches",
    "draw_birds",
    "draw_map",
    "evaluate",
    "explain_run",
    "export_decisions",
    "fetch_data",
    "find_learning_rate",
    "forget_browsed",
    "load_run",
    "load_runs",
    "log_to_wandb",
    "measure_discovery",
    "measure_scatter",
    "plan_suite",
    "plan_suites",
    "record_runs",
    "register_backbone",
    "register_dataset",
    "register_head",
    "register_loss",
    "register_miner",
    "register_optimizer",
    "register_sampler",
    "register_schedule",
    "resolve",
    "run",
    "run_suite",
    "submit_run",
    "suite_commands",
    "sync_to_wandb",
    "tune",
    "verify_submissions",
    "write_evidence",
    "write_leaderboard",
    "write_report",
]
