"""Starts: stages that train the backbone of a phase, on that phase's own training images, before the phase begins."""

from dml_bench.registry import starts


@starts.register("none", summary="no stage: the phase begins with the configured weights", source="")
def none() -> None:
    return None
