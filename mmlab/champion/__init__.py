"""Champions: evaluation, promotion and registration of the best panel of a search."""
