"""Poolings: how a backbone's last map (batch, num_features, height, width) becomes features (batch, num_features)."""

from dml_bench.registry import poolings


@poolings.register("own", summary="the backbone's own: the average of the map, or a transformer's class token", source="")
def own() -> None:
    return None
