"""`moss data plan`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

if TYPE_CHECKING:
    from data_pipeline.text.tokenizer import Tokenizer
    from moss_train.config.schema import RunConfig
    from moss_train.planning.data_load import Speeds
    from moss_train.planning.data_plan import DataPlan, Machine, Stream

RANKS = (8, 64, 512)
EXIT_TOO_SLOW = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument("--workload", action="store_true", help="plan with the committed workload instead of data.datasets")
    parser.add_argument("--source", default="1920x1080@30", help="videos of the workload (default: 1920x1080@30)")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS), help="numbers of GPUs (default: 8 64 512)")
    parser.add_argument("--steps", type=int, default=8, help="steps to draw (default: 8)")
    parser.add_argument("--samples", type=int, default=2000, help="samples to read of each dataset (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    parser.add_argument("--step-seconds", type=float, help="time of a step, if it is known (default: predicted)")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of a GPU (default: 989, H100 and H200 in bf16)")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak that is reached (default: 0.4)")
    parser.add_argument("--cores-per-gpu", type=float, help="end with 1 where decoding owes more")
    parser.add_argument("--measure", type=int, metavar="CLIPS", help="decode so many of your clips here for the speed of a core")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Run it; ends with 1 where the loader cannot keep up."""
    from moss_train import platform

    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    platform.install()
    from moss_train.planning.data_plan import Machine, check_plan, plan_data

    machine = Machine(args.peak_tflops, args.mfu, args.step_seconds)
    check_plan(args.ranks, args.steps, args.samples, machine, args.cores_per_gpu)
    stream, speeds, note = _stream(args, config)
    plan = plan_data(config, stream, args.ranks, machine, steps=args.steps, seed=args.seed, speeds=speeds)
    if args.json:
        print(json.dumps({"data": note, **plan.to_dict()}, indent=1))
    else:
        _print(plan, config, note, machine)
    slow = plan.too_slow(args.cores_per_gpu) if args.cores_per_gpu is not None else []
    for sentence in slow:
        print(f"moss: the loader cannot keep up: {sentence}", file=sys.stderr)
    return EXIT_TOO_SLOW if slow else 0


def _stream(args: argparse.Namespace, config: RunConfig) -> tuple[Stream, Speeds | None, str]:
    """Samples, the speed of a core where it is measured, and what the samples are."""
    from pathlib import Path

    from data_pipeline.text.tokenizer import Tokenizer
    from moss_train.planning.data_items import SourceVideo, check_local, folder_items, workload_items

    if args.workload:
        if args.measure is not None:
            raise InputError("--measure has no clips to decode with --workload; give one of the two")
        video = SourceVideo.parse(args.source)
        next(workload_items(config.stage, video))  # a wrong stage is told now
        return lambda seed: workload_items(config.stage, video, seed), None, f"workload, videos of {args.source}"
    check_local(config.data)
    tokenizer = Tokenizer.from_file(Path(config.data.root) / config.data.tokenizer)
    items = folder_items(config.data, config.stage, tokenizer, args.samples)
    speeds = _measured(args, config, tokenizer) if args.measure is not None else None
    left_out = f", {items.left_out} more left out" if items.left_out else ""
    return items.stream, speeds, f"{items.count} samples of {len(items.items)} datasets{left_out}"


def _measured(args: argparse.Namespace, config: RunConfig, tokenizer: Tokenizer) -> Speeds:
    from pathlib import Path

    from data_pipeline.loader.plan_rules import plan_rules
    from model.config import VideoMllamaConfig
    from moss_train.planning.data_measure import measure

    if args.measure < 1:
        raise InputError(f"--measure is {args.measure}; it must be at least 1")
    videos = [d for d in config.data.datasets if d.modality in ("video", "realtime") and config.data.mixture.get(d.modality, 1.0)]
    folders = [str(Path(config.data.root) / d.path) for d in videos]
    if not folders:
        raise InputError("--measure finds no dataset of modality video or realtime in data.datasets; leave it out")
    size = VideoMllamaConfig.from_dict(config.model).vision.image_size
    return measure(folders, tokenizer, plan_rules(config.stage), size, args.measure)


def _print(plan: DataPlan, config: RunConfig, note: str, machine: Machine) -> None:
    stage = config.stage
    print(f"stage {plan.stage}: packs of {stage.sequence_length} rows and {stage.max_frames_per_pack} frames; {note}\n")
    print("| packing buffer | padding | samples a pack | frames a pack: least, quarter, median, three quarters, most |")
    print("| --- | --- | --- | --- |")
    for s in plan.shapes:
        print(f"| {s.buffer} | {s.padding:.1%} | {s.samples:.2f} | {', '.join(map(str, s.frames))} |")
    print("\nLargest over mean load, and predicted cost of a step over the same samples in other orders:\n")
    print(
        "| GPUs | replicas x packs | rows: packs | rows: sample a rank | frames read: packs | frames: sample a rank "
        "| frames encoded | cost to sample a rank | to it, accumulated | to no wait, no padding |"
    )
    print("|" + " --- |" * 10)
    for b in plan.steps:
        print(
            f"| {b.ranks} | {b.replicas} x {b.packs} | {b.rows_packed:.2f} | {b.rows_alone:.2f} | {b.frames_packed:.2f} "
            f"| {b.frames_alone:.2f} | {b.frames_encoded:.3f} | {b.ratio:.2f} | {b.ratio_accumulated:.2f} | {b.ideal:.2f} |"
        )
    how = "given" if machine.step_seconds is not None else f"predicted at {machine.mfu:.0%} of {machine.peak_tflops:g} TFLOP/s"
    usual = f"usual: {plan.speeds.decoded / (1920 * 1080):.0f} frames of 1080p"
    speed = f"{plan.speeds.decoded / 1e6:.1f} million source pixels a core second, "
    speed += "measured on your clips" if plan.speeds.measured else usual
    print(f"\nOwed to every GPU (step time {how}; {speed}):\n")
    print("| GPUs | step s | frames/s | decoded frames/s | cores | MB/s from storage | buffers MB | prefetched MB |")
    print("|" + " --- |" * 8)
    for b, load in zip(plan.steps, plan.loads, strict=True):
        print(
            f"| {b.ranks} | {load.step_seconds:.2f} | {load.frames:.1f} | {load.decoded:.0f} | {load.cores:.2f} "
            f"| {load.bytes / 1e6:.2f} | {load.buffers / 1e6:.0f} | {load.prefetched / 1e6:.0f} |"
        )
