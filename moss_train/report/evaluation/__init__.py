"""The page of evaluations: tables with intervals, comparisons, distributions and timelines, drawn from plain values."""
