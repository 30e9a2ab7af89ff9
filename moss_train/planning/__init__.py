"""Predictions before a run: the workload that plans and benchmarks are made on, and how evenly its frames are spread."""
