"""`moss train`: one stage on this rank, or on several ranks of this machine with `--nproc-per-node`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.schema import RunConfig

if TYPE_CHECKING:
    from moss_train.trainer import Outcome

EXIT_PEER_LOST = 1
EXIT_BAD_INPUT = 2
SECONDS_BEHIND_THE_FIRST = 0.5
"""How long a rank waits before it reports its own mistake, which the first rank may be making as well."""
SECONDS_FOR_THE_FIRST = 3.0
"""How long a rank keeps quiet after a failure that the first rank, or the rank that caused it, reports too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from moss_train.config.arguments import add_config_arguments

    parser.add_argument(
        "--nproc-per-node", type=int, metavar="N", help="start N ranks on this machine; leave out under torchrun or for one rank"
    )
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train the stage that the arguments describe; see `moss_train.trainer.train`."""
    from moss_train.config.arguments import config_from_args, print_config

    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    if args.nproc_per_node is not None and args.nproc_per_node < 1:
        raise InputError(f"--nproc-per-node is {args.nproc_per_node}; it must be at least 1")
    if "RANK" not in os.environ and (args.nproc_per_node or 1) > 1:
        return _start_ranks(args, config)
    return _train(config)


def _start_ranks(args: argparse.Namespace, config: RunConfig) -> int:
    """Start the ranks after what can be checked without them; ends with the exit code of the first that failed."""
    from moss_train.parallel.local_ranks import start_local_ranks
    from moss_train.parallel.sizes import check_sizes

    check_sizes(config.parallel, args.nproc_per_node)
    options = (("--config", args.config), ("--conf-dir", args.conf_dir))
    words = [word for option, value in options if value is not None for word in (option, value)]
    return start_local_ranks(args.nproc_per_node, "moss_train.cli.main", ["train", *words, *args.overrides])


def _train(config: RunConfig) -> int:
    from moss_train import platform

    platform.install()
    from moss_train.cli.in_training import make_streaming_evaluation
    from moss_train.feed.agreement import CommonError
    from moss_train.guards.memory import memory_sentence
    from moss_train.parallel.world import stop_world
    from moss_train.trainer import train

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        outcome = train(config, [make_streaming_evaluation])
    except InputError as error:
        if rank == 0 and isinstance(error, CommonError):
            _record_bad_input(config, error, world)
        if world == 1 or (rank == 0 and isinstance(error, CommonError)):
            raise
        return _bad_input(error, rank, isinstance(error, CommonError))
    except Exception as error:
        sentence = memory_sentence(error, rank, socket.gethostname())
        if sentence is not None:
            too_large = InputError(sentence)
            if world == 1:
                raise too_large from error
            return _bad_input(too_large, rank, common=False)
        if world == 1:
            raise
        return _failed(error, rank)
    if rank == 0:
        _record(config, outcome, world)
        ending = "finished" if outcome.finished else "was told to end and saved"
        if outcome.data_ended:
            ending = f"stopped before its {config.train.steps} steps because its data ended (repeats, max_samples), and saved"
        print(f"{config.stage.name} {ending} after {outcome.step} steps: {outcome.checkpoint}", flush=True)
    stop_world()
    return 0


def _record(config: RunConfig, outcome: Outcome, world: int) -> None:
    """For whoever decides whether to start the run again."""
    from moss_train.guards.ending import DATA_ENDED, FINISHED, TOLD, Ending, write_ending

    how = FINISHED if outcome.finished else DATA_ENDED if outcome.data_ended else TOLD
    write_ending(config.run_dir, Ending(how, 0, step=outcome.step, world_size=world))


def _record_bad_input(config: RunConfig, error: InputError, world: int) -> None:
    """Whoever starts runs on several nodes sees the code of the node that was ended first, which says nothing."""
    from moss_train.guards.ending import FAILED, Ending, write_ending

    write_ending(config.run_dir, Ending(FAILED, EXIT_BAD_INPUT, str(error), world_size=world))


def _bad_input(error: InputError, rank: int, common: bool) -> int:
    """The others end with the same sentence, printed once."""
    from moss_train.guards.watch import current_watch

    watch = current_watch()
    if common:  # the first rank raises it too, and prints it
        if watch is not None:
            watch.stop()
        _let_the_first_rank_speak()
        return EXIT_BAD_INPUT
    if watch is None:  # before the ranks have met
        if rank != 0:
            _let_the_first_rank_speak()
        raise error
    if rank != 0:
        time.sleep(SECONDS_BEHIND_THE_FIRST)
    shown = f"moss [rank {rank}]: error: {error}"
    return watch.tell(f"rank {rank} on host {watch.host}: {error}", EXIT_BAD_INPUT, shown)


def _failed(error: Exception, rank: int) -> int:
    """What ended this rank, unless it is that another one ended before: then the cause comes from there."""
    from moss_train.guards.stop_signal import outlast_signals
    from moss_train.guards.watch import current_watch

    outlast_signals()
    watch = current_watch()
    first_line = (str(error).strip().splitlines() or [""])[0]
    if _lost_a_peer(error):
        if watch is not None:
            watch.wait_for_cause()
        else:
            _let_the_first_rank_speak()
        print(
            f"moss [rank {rank}]: ended because a connection to another rank was lost; its message says why ({first_line})",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_PEER_LOST
    if watch is None:
        raise error
    traceback.print_exception(error)
    sys.stderr.flush()
    sentence = (
        f"rank {rank} on host {watch.host} failed with {type(error).__name__}: {first_line}; its traceback is in its output"
    )
    return watch.tell(sentence, EXIT_PEER_LOST)


def _let_the_first_rank_speak() -> None:
    """Most mistakes show on all ranks at once: the others wait, and the launcher ends them before they repeat it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(SECONDS_FOR_THE_FIRST)


def _lost_a_peer(error: Exception) -> bool:
    """Whether a collective failed since a rank at its other end is gone."""
    text = str(error)
    parts = ("closed by peer", "Connection reset", "Broken pipe", "NCCL", "Gloo", "gloo")
    return isinstance(error, RuntimeError) and any(part in text for part in parts)
