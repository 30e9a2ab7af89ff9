"""What the inference commands share: arguments, loading, and how errors end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from model.errors import InputError, file_trouble

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, name: str, **options: Any) -> None:
    """`--some_name`, spelled `--some-name` as well."""
    parser.add_argument(f"--{name}", *([f"--{name.replace('_', '-')}"] if "_" in name else []), dest=name, **options)


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: str | None = None) -> None:
    """--checkpoint, --device, --dtype, --precision, --cross_kv, --vision, --near_duplicate."""
    parser.add_argument(
        "--checkpoint",
        default=checkpoint,
        required=checkpoint is None,
        help="folder in Hugging Face layout with its tokenizer.json, or a hub id owner/name (modelscope:owner/name)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--dtype", default="auto", help="fp32, bf16, fp16 or auto: bf16 on a GPU, fp32 elsewhere (default)")
    add_precision_arguments(parser)
    add_vision_arguments(parser)


def add_vision_arguments(parser: argparse.ArgumentParser) -> None:
    """--vision, --near_duplicate."""
    parser.add_argument(
        "--vision",
        default="exact",
        help="how frames are encoded: exact, valid_rows (padding is not computed), fp8, or fast for both (default exact)",
    )
    add_option(
        parser, "near_duplicate", type=float, help="frames that differ by fewer levels of 255 take the last one's features"
    )


def set_encoder(args: argparse.Namespace, model: Any) -> None:
    """Gives the model the frame encoder of parsed arguments; the exact one where a command has none of them.

    Raises:
        InputError: an unknown mode, or a threshold outside 0 to 255.
    """
    from inference.vision.encoder import FrameEncoder
    from inference.vision.mode import VisionMode, vision_mode

    mode = vision_mode(getattr(args, "vision", "exact"), getattr(args, "near_duplicate", None))
    if mode != VisionMode():
        model.encoder = FrameEncoder(model.vision, mode=mode)


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """--precision, --cross_kv."""
    parser.add_argument(
        "--precision",
        help="the decoder's weights: bf16, fp8 (self layers and all MLPs), fp8_self (self layers); default: all in --dtype",
    )
    add_option(
        parser, "cross_kv", default="bf16", help="keys and values of frames: fp8, or bf16 for the model's dtype (default bf16)"
    )


def precision_from(args: argparse.Namespace, device: str) -> tuple[Any, Any]:
    """(dtype, recipe) of parsed arguments.

    Args:
        device: for the dtype `auto`.

    Raises:
        InputError: an unknown name, or names that contradict each other.
    """
    from inference.checkpoint import dtype_of
    from inference.quantize import recipe_of

    recipe = recipe_of(args.precision or "bf16")
    if args.precision == "bf16" and args.dtype not in ("auto", "bf16"):
        raise InputError(f"--precision bf16 and --dtype {args.dtype} contradict each other; leave one of them out")
    if args.cross_kv not in ("bf16", "fp8"):
        raise InputError(f"--cross_kv is {args.cross_kv!r}; use bf16 or fp8")
    wide = args.precision == "bf16" or device.startswith("cuda")
    return dtype_of(args.dtype if args.dtype != "auto" else "bf16" if wide else "fp32"), recipe


def add_sampling_arguments(parser: argparse.ArgumentParser, *, temperature: float, top_k: int) -> None:
    """--temperature, --top_k, --top_p, --repetition_penalty, --seed; temperature 0 is greedy."""
    add_option(parser, "temperature", type=float, default=temperature, help=f"0 is greedy (default {temperature:g})")
    add_option(parser, "top_k", type=int, default=top_k, help=f"sample among the k likeliest tokens; 0: all (default {top_k})")
    add_option(parser, "top_p", type=float, default=1.0, help="sample among the likeliest tokens of this probability (default 1)")
    add_option(parser, "repetition_penalty", type=float, default=1.0, help="above 1 makes repetition less likely (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")


def sampling_from(args: argparse.Namespace, silence_threshold: float = 0.0) -> Any:
    """The `SamplingConfig` of parsed arguments."""
    from inference.sampling import SamplingConfig

    greedy = args.temperature == 0
    return SamplingConfig(
        do_sample=not greedy,
        temperature=1.0 if greedy else args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        silence_threshold=silence_threshold,
        seed=args.seed,
    )


def load_engine(args: argparse.Namespace, *, realtime: bool = False) -> tuple[Any, Any]:
    """(StepEngine, Tokenizer) of --checkpoint.

    Args:
        realtime: refuse a checkpoint that was not trained on real-time dialogues, before its weights are read.
    """
    from data_pipeline.text.tokenizer import Tokenizer
    from inference.checkpoint import check_device, require_realtime, resolve_checkpoint
    from inference.engine import StepEngine
    from inference.model.folder import read_config
    from inference.model.load import load_model

    folder = resolve_checkpoint(args.checkpoint)
    _, details = read_config(folder, None)
    if realtime:
        require_realtime(folder, details)
    device = check_device(args.device)
    dtype, recipe = precision_from(args, device)
    tokenizer = Tokenizer.from_file(folder)
    model = load_model(folder, device, dtype, recipe=recipe)
    if tokenizer.vocab_size != model.config.text.vocab_size:
        raise InputError(
            f"{tokenizer.source} has {tokenizer.vocab_size} entries, the checkpoint's head {model.config.text.vocab_size} rows; "
            "use the checkpoint's own"
        )
    set_encoder(args, model)
    return StepEngine(model, _store(args, model)), tokenizer


def _store(args: argparse.Namespace, model: Any) -> Any:
    """The pages that --cross_kv and the policy's arguments, where the command has them, ask for; None: the engine's own."""
    from inference.cache.policies.arguments import policy_from
    from inference.cache.store import HOUR_FRAMES, KVStore, roomy_store

    fp8_frames = args.cross_kv == "fp8"
    if hasattr(args, "cross_policy"):
        most = getattr(args, "max_frames", HOUR_FRAMES)
        return roomy_store(model, policy_from(args), max_frames=most, fp8_frames=fp8_frames)
    if not fp8_frames:
        return None
    positions, frames = (8192, 512) if model.device.type == "cuda" else (256, 16)  # as the engine's own, and growing as it does
    return KVStore(model.config, model.device, model.dtype, positions=positions, frames=frames, fp8_frames=True)


def system_text(given: str | None, details: dict[str, Any], foreign_default: str) -> str:
    """The system message: as given, else the checkpoint's own, else none; `foreign_default` names it for foreign checkpoints."""
    from data_pipeline.text.prompts import DEFAULT_PROMPTS

    if given is not None:
        return DEFAULT_PROMPTS.get(given, given)
    return str(details.get("system") or "") if details.get("stage") else DEFAULT_PROMPTS[foreign_default]


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None = None
) -> int:
    """Parse and run; bad input becomes one sentence on stderr and exit code 2."""
    return exit_code(parser.prog, lambda: run(parser.parse_args(argv)))


def exit_code(program: str, run: Callable[[], object]) -> int:
    """What `run` returns where that is a number, else 0; 2 and one sentence on stderr for what a user can put right."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except OSError as error:
        trouble = file_trouble(error)
        if trouble is None:
            raise
        print(f"{program}: error: {trouble}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED
