"""What a page of evaluations says, as plain values: tables with intervals, distributions, timelines, what is missing."""
