"""Compare methods over finished trials: result table, paired tests, robustness, tables, curves."""
