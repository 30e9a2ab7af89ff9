"""`offline_generate`: questions from a queue, answers piece by piece on another."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from data_pipeline.media.decode import sample_video
from data_pipeline.text.tokenizer import Tokenizer
from inference.commands import system_text
from inference.engine import StepEngine
from inference.offline import Answerer, question_rows
from inference.protocol.images import frame_of
from inference.protocol.markers import ERROR, ROUND_END
from inference.sampling import SamplingConfig
from inference.thinking import SYSTEM_PROMPT_TYPES, THINKING_MODES, system_name
from model.errors import InputError

MEDIA = {"video_fps": 1.0, "video_minlen": 8, "video_maxlen": 256}
GENERATE = {"do_sample": True, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "max_new_tokens": 1024, "repetition_penalty": 1.0}
_FIELDS = frozenset(
    {
        "prompt",
        "images",
        "videos",
        "media_kwargs",
        "thinking_mode",
        "system_prompt_type",
        "generate_kwargs",
        "stop_offline_generate",
        "seed",
    }
)


@dataclass
class Query:
    """One question, checked."""

    prompt: str
    images: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    media: dict[str, Any] = field(default_factory=dict)
    generate: dict[str, Any] = field(default_factory=dict)
    thinking_mode: str = "no_thinking"
    system_prompt_type: str = "video"
    seed: int = 0

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Query:
        """The question in a dictionary of the protocol; what is missing takes the reference's value.

        Raises:
            InputError: an unknown field, or a value of another kind; the message names it.
        """
        for name in item:
            _one_of(f"field {name!r} of a query", name, sorted(_FIELDS))
        prompt = item.get("prompt", "")
        if not isinstance(prompt, str):
            raise InputError(f"prompt is {type(prompt).__name__}; it must be a string")
        mode, kind = item.get("thinking_mode", "no_thinking"), item.get("system_prompt_type", "video")
        _one_of("thinking_mode", mode, THINKING_MODES)
        _one_of("system_prompt_type", kind, SYSTEM_PROMPT_TYPES)
        return cls(
            prompt=prompt,
            images=list(item.get("images") or ()),
            videos=list(item.get("videos") or ()),
            media=_merged(MEDIA, item.get("media_kwargs"), "media_kwargs"),
            generate=_merged(GENERATE, item.get("generate_kwargs"), "generate_kwargs"),
            thinking_mode=mode,
            system_prompt_type=kind,
            seed=int(item.get("seed", 0)),
        )

    def sampling(self) -> SamplingConfig:
        """How the answer is sampled; temperature 0 is greedy as well."""
        given = self.generate
        greedy = given["temperature"] == 0 or not given["do_sample"]
        return SamplingConfig(
            do_sample=not greedy,
            temperature=1.0 if greedy else float(given["temperature"]),
            top_k=int(given["top_k"]),
            top_p=float(given["top_p"]),
            repetition_penalty=float(given["repetition_penalty"]),
            seed=self.seed,
        )


class OfflineGenerator:
    """Answers the questions of a queue one after the other; each stands for itself.

    Args:
        engine, tokenizer: of any checkpoint.
        chunk: frames that the vision tower encodes at a time (`vision_chunked_length`), which bounds memory.
    """

    def __init__(self, engine: StepEngine, tokenizer: Tokenizer, chunk: int) -> None:
        if chunk < 1:
            raise InputError(f"vision_chunked_length is {chunk}; it must be at least 1")
        self._engine, self._tokenizer, self._chunk = engine, tokenizer, chunk
        self._details: dict[str, Any] = engine.model.details

    def run(self, queries: queue.Queue[Any], out: queue.Queue[str]) -> None:
        """Answer until a query asks to stop. A query that cannot be answered becomes one `[ERROR] ...` message."""
        while True:
            item = queries.get()
            try:
                if not isinstance(item, Mapping):
                    raise InputError(f"a query is {type(item).__name__}; put dictionaries into the queue")
                if item.get("stop_offline_generate"):
                    return
                self.answer(Query.read(item), out)
                out.put(ROUND_END)
            except Exception as error:
                if not isinstance(error, InputError):
                    traceback.print_exc()  # no fault of the query's; whoever asks next is answered all the same
                out.put(f"{ERROR} {' '.join(str(error).split()) or type(error).__name__}")

    def answer(self, query: Query, out: queue.Queue[str]) -> None:
        """Put the pieces of one answer."""
        frames = self._frames(query)
        count = 0 if frames is None else len(frames)
        system = system_text(None, self._details, system_name(query.thinking_mode, query.system_prompt_type))
        if query.thinking_mode != "no_thinking":
            system = system_text(system_name(query.thinking_mode, query.system_prompt_type), {}, "none")
        template = self._details.get("template") or "mllama"
        rows = question_rows(query.prompt, count, self._tokenizer, system=system, template=template)
        limit = int(query.generate["max_new_tokens"])
        if limit < 1:
            raise InputError(f"max_new_tokens is {limit}; it must be at least 1")
        answerer = Answerer(self._engine, self._tokenizer, sampling=query.sampling(), max_new_tokens=limit, chunk=self._chunk)
        answerer.reply(rows, frames, out.put)

    def _frames(self, query: Query) -> torch.Tensor | None:
        """uint8 [F, 3, S, S]: images first, then the frames of the videos; None without media."""
        size = self._engine.model.config.vision.image_size
        parts = [frame_of(image, size)[None] for image in query.images]
        for video in query.videos:
            media = query.media
            fps, least, most = float(media["video_fps"]), int(media["video_minlen"]), int(media["video_maxlen"])
            parts.append(sample_video(str(video), size, fps=fps, min_frames=least, max_frames=most)[0])
        return torch.cat(parts) if parts else None


def _merged(defaults: Mapping[str, Any], given: object, name: str) -> dict[str, Any]:
    if given is None:
        return dict(defaults)
    if not isinstance(given, Mapping):
        raise InputError(f"{name} is {type(given).__name__}; it must be a dictionary")
    for key, value in given.items():
        _one_of(f"field {key!r} of {name}", key, sorted(defaults))
        kind, wanted = (bool, "True or False") if isinstance(defaults[key], bool) else ((int, float), "a number")
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise InputError(f"{name}[{key!r}] is {value!r}; it must be {wanted}")
    return {**defaults, **given}


def _one_of(what: str, value: object, known: Any) -> None:
    if value not in known:
        shown = f"{what} is unknown" if repr(value) in what else f"{what} is {value!r}"
        raise InputError(f"{shown}; use {', '.join(known)}")
