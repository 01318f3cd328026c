"""Numbers of things in sentences."""

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """`1 class`, `1,200 classes`, `2 entries`, `3 searches`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count:,} {noun.removesuffix('y')}ies"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'ch')) else 's'}"
