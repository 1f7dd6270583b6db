"""Hold what kagflow knows about the Severstal steel competition: its data, recipes and plug-ins."""
