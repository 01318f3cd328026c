"""What finished runs say: tables, comparisons, ablations, tested claims and diagnostics."""
