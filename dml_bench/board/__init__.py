"""A scoreboard of runs from anywhere: records are handed in, checked against their own answers, and
ranked only where they can be compared."""
