"""Launching for real: Slurm's own daemons, and hosts in network namespaces. `make test-cluster` runs it."""
