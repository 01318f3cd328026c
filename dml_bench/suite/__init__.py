"""The experiment table: many runs, each in a process of its own, and the page that sets them side
by side."""
