"""A finished run: its folder, what is written there, and the one reader. `execute` makes one."""
