"""The place of a run in its data: what identifies the data, and the states of all readers."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError

STATE_VERSION = 2


def identity_of(
    data: DataSettings,
    stage: StageSettings,
    model_config: VideoMllamaConfig,
    tokenizer: Tokenizer,
    sources: Sequence[Any],
) -> dict[str, Any]:
    """All that determines the order and content of micro-batches, by the name of its field.

    Not in it: where the folders lie, how many processes read them, how videos are decoded, and which samples are known bad.
    """
    identity: dict[str, Any] = {
        f"data.{name}": getattr(data, name)
        for name in ("global_data_workers", "seed", "shuffle_buffer", "packing_buffer", "samples_per_pack")
    }
    identity |= {
        f"stage.{name}": getattr(stage, name)
        for name in (
            "sequence_length",
            "max_frames_per_pack",
            "truncation",
            "template",
            "realtime_jitter_prob",
            "label_eot_realtime",
        )
    }
    identity |= {f"stage.frames.{name}": getattr(stage.frames, name) for name in ("fps", "min_frames", "max_frames")}
    identity["model.vision.image_size"] = model_config.vision.image_size
    identity["data.tokenizer"] = _vocabulary_digest(tokenizer)
    identity["data.datasets"] = ", ".join(source.name for source in sources)
    for source in sources:
        where = f"data.datasets[{source.name}]"
        identity[f"{where} share"] = round(source.share, 9)
        for name in ("repeats", "max_samples", "digest"):
            identity[f"{where}.{name}"] = getattr(source, name, None)
    return identity


def new_state(
    identity: Mapping[str, Any], micro_batches: int, readers: Mapping[int, bytes | None], ended: bool
) -> dict[str, Any]:
    """A picklable state.

    Args:
        micro_batches: micro-batches that all replicas together have given since the start of the run.
        readers: state by the number of the reader; None is the beginning of its data.
        ended: a reader of this replica has no more data.
    """
    return {
        "version": STATE_VERSION,
        "energon": energon_version(),
        "identity": dict(identity),
        "micro_batches": micro_batches,
        "readers": dict(readers),
        "ended": ended,
    }


def merge_states(states: Sequence[Mapping[str, Any]], where: str = "the saved place in the data") -> dict[str, Any]:
    """One state of what the replicas of a run saved at the same step.

    Args:
        where: name of the states in messages.

    Raises:
        InputError: they are not the states of all readers of one run at one step.
    """
    for state in states:
        _check_version(state, where)
    first = states[0]
    readers: dict[int, bytes | None] = {}
    for state in states:
        if state["identity"] != first["identity"]:
            raise InputError(
                f"{where} mixes files of differently configured runs; copy the checkpoint again or use an earlier one"
            )
        twice = sorted(readers.keys() & state["readers"].keys())
        if twice:
            raise InputError(
                f"{where} holds reader {twice[0]} twice, so it mixes files of several checkpoints; "
                "copy the checkpoint again or use an earlier one"
            )
        readers |= state["readers"]
    ended = any(state["ended"] for state in states)
    given = sorted({int(state["micro_batches"]) for state in states})
    if len(given) > 1 and not ended:  # where the data end, replicas may stand at different micro-batches of the last step
        raise InputError(
            f"{where} mixes files of different steps ({' and '.join(map(str, given))} micro-batches given); "
            "copy the checkpoint again or use an earlier one"
        )
    merged = new_state(first["identity"], given[0], dict(sorted(readers.items())), ended)
    merged["energon"] = first["energon"]
    check_whole(merged, where)
    return merged


def check_whole(state: Mapping[str, Any], where: str = "the saved place in the data") -> None:
    """Whether every reader is there.

    Raises:
        InputError: one is missing, or another version wrote the state.
    """
    _check_version(state, where)
    total = state["identity"]["data.global_data_workers"]
    missing = [str(number) for number in range(total) if number not in state["readers"]]
    if missing:
        raise InputError(
            f"{where} lacks reader{'s' if len(missing) > 1 else ''} {', '.join(missing)} of {total}; "
            "give the merged states of all replicas, copy the checkpoint again or use an earlier one"
        )


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Whether the state belongs to data that are read in the same way.

    Raises:
        InputError: a field differs.
    """
    saved = state["identity"]
    for name in [*identity, *saved]:
        then, now = saved.get(name), identity.get(name)
        if then != now:
            raise InputError(
                f"the saved place in the data was made with {name} = {then}, now it is {now}; "
                "continue with the saved value or start a new run"
            )


def energon_version() -> str:
    """Of the installed package."""
    return importlib.metadata.version("megatron-energon")


def _check_version(state: Any, where: str) -> None:
    version = state.get("version") if isinstance(state, Mapping) else None
    if version != STATE_VERSION:
        raise InputError(
            f"{where} was written by another version of the loader ({version}, this one reads {STATE_VERSION}); "
            "continue with the version that wrote it, or give the checkpoint as train.init_from with another run_dir"
        )


def _vocabulary_digest(tokenizer: Tokenizer) -> str:
    """The same for a tokenizer that was written again, perhaps by another version of the library."""
    vocabulary = sorted(tokenizer.raw.get_vocab(with_added_tokens=True).items())
    return "vocabulary " + hashlib.sha256(repr(vocabulary).encode("utf-8")).hexdigest()[:16]
