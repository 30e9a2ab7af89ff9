"""The `moss` command: the only place that may import all four packages, one module a sub-command, imported lazily."""
