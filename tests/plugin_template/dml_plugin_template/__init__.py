"""A package that brings a loss and a miner to dml-bench."""
