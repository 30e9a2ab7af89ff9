"""One rank of `moss verify golden`: replays in the layout and, on rank 0, writes the differences to a file."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_train.config.schema import ParallelConfig


def replay(folder: Path, sizes: ParallelConfig) -> list[tuple[str, float]]:
    """All differences of the folder in a layout; complete on rank 0.

    Training quantities come from the Megatron model, generated and streamed ones from the inference model that is
    loaded from this layout's own conversion.

    Raises:
        InputError: a bad folder, or sizes that do not fit the model or the number of ranks.
    """
    from moss_train import platform

    platform.install()
    import torch

    from inference.verify import replay_recorded
    from model.config import SwitchConfig
    from model.conversion.folder import write_hf_folder
    from moss_train.parallel.layout import start_layout, stop_layout
    from moss_train.parallel.world import start_world, stop_world
    from moss_train.platform.device import resolve_device
    from moss_train.verify.golden import read_golden, replay_training

    torch.set_num_threads(1)
    device = resolve_device("auto")
    start_world(device)
    try:
        start_layout(sizes, device, seed=1)
        golden = read_golden(folder)
        found, weights = replay_training(golden, sizes, device)
        if weights is not None:
            with tempfile.TemporaryDirectory(prefix="moss_golden_") as scratch:
                converted = write_hf_folder(Path(scratch) / "hf", weights, golden.config)
                found += replay_recorded(converted, golden.io, SwitchConfig(no_visible_rows="attend_all"))
    finally:
        stop_layout()
        stop_world()
    return found


def main(arguments: list[str]) -> int:
    """`RESULT FOLDER SIZES`: one rank of the replay; SIZES are the fields of `ParallelConfig` as JSON."""
    from moss_train.config.schema import ParallelConfig
    from moss_train.parallel.spawn import answer

    sizes = ParallelConfig(**json.loads(arguments[2]))
    return answer(Path(arguments[0]), lambda: replay(Path(arguments[1]), sizes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
