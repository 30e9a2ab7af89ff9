"""The training run: command line, trainer, engines, checkpoints, monitors and planning."""
