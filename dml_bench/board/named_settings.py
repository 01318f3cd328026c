"""Whether a row that is called as an experiment of this package has its settings."""

from dml_bench.config import Experiment, as_table, experiments
from dml_bench.config.variants import TUNED, base_name, is_named, settings_in, suffix_of
from dml_bench.runs.folder import decisive, differing

__all__ = ["unlike_its_name"]

OF_TABLES = ("data.test_fraction", "data.valid_fraction")
"""What tables set beside the kind of split, and names don't show."""
SHOWN = 4


def unlike_its_name(experiment: Experiment) -> str:
    """In what it differs from the experiment of its name, for people; empty where it doesn't, or
    where the name is a person's own or was cut short."""
    base, suffix = base_name(experiment.name), suffix_of(experiment.name)
    is_cut = any("=" not in part and part != TUNED for part in suffix[1:].split(",") if part)
    if base not in experiments.names() or is_cut:
        return ""
    overrides = [f"{key}={value}" for key, value in settings_in(experiment).items()]
    try:
        named = experiments.resolve(base, profile=experiment.profile, overrides=overrides)
    except ValueError:  # settings of another version
        return ""
    free = {*OF_TABLES, *(experiment.tuned.settings if experiment.tuned else ())}
    others = differing(decisive(as_table(named)), decisive(as_table(experiment)))
    shown = [key for key in others if is_named(key) and not key.startswith(TUNED)]
    keys = [key for key in shown if key not in free]
    more = ", ..." if len(keys) > SHOWN else ""
    return f"other settings than {base}: {', '.join(keys[:SHOWN])}{more}" if keys else ""
