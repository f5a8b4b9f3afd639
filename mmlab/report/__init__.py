"""Reports: a study as an HTML page with figures, tables and manifest, and its reproduction."""
