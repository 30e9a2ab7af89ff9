"""What starts a run on nodes: commands, batch scripts and manifests rendered from `conf/launcher`, and what a Slurm job does
on its first node. Imports no torch, so that a login node can do it."""
