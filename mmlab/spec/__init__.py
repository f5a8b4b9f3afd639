"""What to run: frozen pydantic models of trials, searches and comparisons, and their YAML files."""
