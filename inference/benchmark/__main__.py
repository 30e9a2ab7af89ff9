"""`python -m inference.benchmark`: as `moss bench inference`, with nothing installed but torch, numpy and safetensors."""

from __future__ import annotations

import argparse

from inference.benchmark.command import add_arguments, run
from inference.commands import run_command


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark", description="Measure the inference engine.")
    add_arguments(parser)
    return run_command(parser, run)


if __name__ == "__main__":
    raise SystemExit(main())
