"""Mirrors of a run elsewhere, which may be absent or down."""
