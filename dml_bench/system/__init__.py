"""The machine and its bits: processes, devices, memory, files, randomness, terminal."""
