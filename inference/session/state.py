"""A paused session in one file: settings, cache, what waits, and where its clock stands; and the session made anew.

The file is in safetensors' form: tensors, and everything else as JSON in its header. Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from inference.evaluation.schema import TraceEvent
from inference.sampling import SamplerState
from inference.session.arrivals import Arrival
from inference.session.cache_state import cache_state, fill_cache
from inference.session.clock import Clock
from inference.session.frame_queue import PendingFrame
from inference.session.inbox import Drained, Inbox
from inference.session.ledger import FrameLedger
from inference.session.settings import SessionSettings
from model.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.text.tokenizer import Tokenizer
    from inference.engine import StepEngine
    from inference.session.loop import RealtimeSession

FORMAT = 1


def save_session(session: RealtimeSession, path: Path) -> None:
    """Write a paused session, whole or not at all.

    Raises:
        InputError: it is not paused.
    """
    if session.end_reason != "paused":
        raise InputError(f"the session is {session.end_reason or 'running'}; pause it before its state is saved")
    with session.inbox.lock:
        state, tensors = _describe(session)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors.setdefault("none", torch.zeros(0))  # a file without tensors is none
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, str(temporary), {"session": json.dumps(state)})
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"saved session {path} cannot be written ({error}); make room or name another file") from None
    finally:
        temporary.unlink(missing_ok=True)


def _describe(session: RealtimeSession) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    cache, tensors = cache_state(session.cache)
    progress, queue = session.progress, session.inbox.queue
    waiting = [*progress.carried.frames, *queue.waiting]
    if waiting:
        tensors["waiting"] = torch.stack([frame.pixels.cpu() for frame in waiting])
    sampler = session.sampler.state()
    return {
        "format": FORMAT,
        "settings": session.settings.as_dict(),
        "now": session.clock.now(),
        "cache": cache,
        "sampler": {"accepted": sampler.accepted, "seen": list(sampler.seen)},
        "pacer": session.pacer.state(),
        "turns": session.turns.state(),
        "token": progress.token,
        "silent_since": progress.silent_since,
        "step": progress.step,
        "emitted": progress.emitted,
        "prompts": _spoken(progress.prompts),
        "carried": _spoken(progress.carried.spoken),
        "pending": _spoken(session.inbox.pending()),
        "frames": [{"number": frame.number, "t": frame.t} for frame in waiting],
        "carried_frames": len(progress.carried.frames),
        "ledger": queue.ledger.as_dict(),
        "queue": {"last_t": queue.last_t, "kept": queue.kept, "policy": queue.policy.state()},
        "drawn": session.inbox.drawn,
    }, tensors


def restore_session(
    path: Path,
    engine: StepEngine,
    tokenizer: Tokenizer,
    inbox: Inbox,
    clock: Callable[[float], Clock],
    on_event: Callable[[TraceEvent], None] | None,
) -> RealtimeSession:
    """See `RealtimeSession.restore`."""
    from inference.session.loop import Progress, RealtimeSession

    if inbox.queue.ledger.submitted:
        raise InputError(f"the inbox for {path} has taken {inbox.queue.ledger.submitted} frames already; give a new one")
    state, tensors = _read(path)
    settings = SessionSettings.from_dict(state["settings"], str(path))
    session = RealtimeSession(engine, tokenizer, inbox, clock(state["now"]), settings, on_event)
    fill_cache(session.cache, state["cache"], tensors, str(path))
    session.sampler.restore(SamplerState(state["sampler"]["accepted"], tuple(state["sampler"]["seen"])))
    session.pacer.restore(state["pacer"])
    session.turns.restore(state["turns"])
    frames = [
        PendingFrame(one["number"], one["t"], pixels)
        for one, pixels in zip(state["frames"], tensors.get("waiting", ()), strict=True)
    ]
    early = state["carried_frames"]
    session.progress = Progress(
        token=state["token"],
        silent_since=state["silent_since"],
        step=state["step"],
        emitted=state["emitted"],
        prompts=_arrivals(state["prompts"]),
        carried=Drained(_arrivals(state["carried"]), frames[:early]),
    )
    queue = inbox.queue
    queue.ledger = FrameLedger.from_dict(state["ledger"])
    queue.in_flight += frames[:early]
    queue.waiting.extend(frames[early:])
    queue.last_t, queue.kept = state["queue"]["last_t"], state["queue"]["kept"]
    queue.policy.restore(state["queue"]["policy"])
    inbox.skip(state["drawn"])
    for arrival in _arrivals(state["pending"]):
        inbox.put_back(arrival)
    return session


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get("session")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"saved session {path} does not exist; give a file that save_state wrote") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"saved session {path} cannot be read ({error}); it is damaged, save the session again") from None
    if header is None:
        raise InputError(f"{path} holds no session; give a file that save_state wrote")
    state = json.loads(header)
    if state.get("format") != FORMAT:
        raise InputError(f"{path} has format {state.get('format')}, this version reads {FORMAT}; use the version that wrote it")
    return state, tensors


def _spoken(arrivals: Sequence[Arrival]) -> list[dict[str, Any]]:
    return [{"t": arrival.t, "prompt": arrival.prompt, "control": arrival.control} for arrival in arrivals]


def _arrivals(values: Sequence[dict[str, Any]]) -> list[Arrival]:
    return [Arrival(**one) for one in values]
