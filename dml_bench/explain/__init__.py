"""Where a network looks: maps of what speaks for a class or for another image, both phases side by
side, and scores of such maps."""
