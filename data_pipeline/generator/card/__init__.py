"""The report card of a build: what was made, what was thrown away and why, and some rows to look at."""

from data_pipeline.generator.card.write import CardSummary, write_card

__all__ = ["CardSummary", "write_card"]
