"""Records: their schema, their store, and reading them back. Importable without torch."""
