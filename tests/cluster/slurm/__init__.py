"""Jobs of `moss launch slurm` on a real Slurm that the tests start: three nodes, which are daemons on this machine."""
