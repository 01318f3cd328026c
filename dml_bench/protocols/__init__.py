"""Protocols: what is trained on, what is asked, and what is reported.

A protocol is one object (`base.Protocol`). A new one is a module here and its import below.
"""

from dml_bench.protocols import class_disjoint, class_holdout, multi_label
from dml_bench.protocols.base import Protocol, phases_of, protocol_named, protocol_of

__all__ = [
    "Protocol",
    "class_disjoint",
    "class_holdout",
    "multi_label",
    "phases_of",
    "protocol_named",
    "protocol_of",
]
