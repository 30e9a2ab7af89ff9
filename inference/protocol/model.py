"""A loaded checkpoint with the generators that programs of the reference call."""

from __future__ import annotations

import argparse
import math
import queue
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from data_pipeline.text.tokenizer import Tokenizer
from inference.commands import add_model_arguments, load_engine, system_text
from inference.engine import StepEngine
from inference.protocol.markers import ERROR
from inference.protocol.offline import OfflineGenerator
from inference.protocol.realtime import Fragments, RealtimeGenerator
from inference.sampling import SamplingConfig
from inference.session.settings import SessionSettings
from model.errors import InputError

EARLY = 1.0
"""Seconds by which a stop may come before the generator that it is for."""


class QueueModel:
    """Answers and speaks between queues.

    Args:
        engine: the step engine.
        tokenizer: the checkpoint's own.
    """

    def __init__(self, engine: StepEngine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self._running: RealtimeGenerator | None = None
        self._ended, self._early_stop = -math.inf, -math.inf
        """When the last generator ended, and when a stop came that was for none which ran: seconds of the monotonic clock."""
        self._begun: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        """Threads that ran when that stop came, but for the one that asked for it."""
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path, *, device: str = "auto", dtype: str = "auto") -> QueueModel:
        """Load a checkpoint.

        Args:
            checkpoint: a folder in the Hugging Face layout with its tokenizer.json, or a hub id.
            device: cpu, cuda, cuda:N or auto.
            dtype: fp32, bf16, fp16 or auto (bf16 on a GPU, else fp32).

        Raises:
            InputError: it cannot be loaded.
        """
        parser = argparse.ArgumentParser()
        add_model_arguments(parser)
        return cls(*load_engine(parser.parse_args(["--checkpoint", str(checkpoint), "--device", device, "--dtype", dtype])))

    def offline_generate(
        self, new_queries: queue.Queue[Any], output_text_queue: queue.Queue[str], vision_chunked_length: int = 64
    ) -> None:
        """Answer the queries that are put into a queue, until one has `stop_offline_generate` set.

        Args:
            new_queries: dictionaries with `prompt`, `images` (PIL), `videos` (paths), `media_kwargs` (video_fps,
                video_minlen, video_maxlen), `thinking_mode` (no_thinking | deep_thinking), `system_prompt_type` (video |
                text_image), `generate_kwargs` (temperature, top_k, top_p, max_new_tokens, repetition_penalty), `seed`,
                `stop_offline_generate`; all may be missing.
            output_text_queue: takes pieces of text, then `<|round_end|>`; a query that cannot be answered gives one
                message `[ERROR] ...` in the place of `<|round_end|>`, and the next one is awaited.
            vision_chunked_length: frames that are encoded at a time.
        """
        OfflineGenerator(self.engine, self.tokenizer, vision_chunked_length).run(new_queries, output_text_queue)

    def real_time_generate(
        self,
        image_queue: queue.Queue[Any],
        prompt_queue: queue.Queue[Any],
        token_queue: queue.Queue[str],
        processor: object = None,
        *,
        max_new_tokens: int = 86400,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        silence_threshold: float = 0.0,
        max_tokens_per_turn: float | None = None,
        system_prompt: str | None = None,
        mark_round_ends: bool = False,
        settings: SessionSettings | None = None,
    ) -> str:
        """Watch and speak until `stop_real_time_generate` is called, or `max_new_tokens` are said.

        Args:
            image_queue: PIL images (or uint8 arrays [height, width, 3]); each is a frame at the moment at which it is put.
            prompt_queue: strings.
            token_queue: takes fragments: `<|round_start|>` when a prompt is taken in, text, `<|silence|>`; in the end
                `[DONE]`, or `[ERROR] ...` and the exception is raised too.
            processor: for calls as the reference has them; not looked at.
            max_tokens_per_turn: tokens a second at most, in spite of the reference's name for it.
            system_prompt: text or name; the checkpoint's own by default.
            mark_round_ends: put `<|round_end|>` where an answer falls silent; the reference's listener would end there.
            settings: everything at once, in the place of the other arguments.

        Returns:
            The reason of the end.

        Raises:
            InputError: a generator is running already; something in a queue is no picture.
        """
        try:
            sampling = SamplingConfig(
                do_sample=do_sample,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                repetition_penalty=repetition_penalty,
                seed=seed,
                silence_threshold=silence_threshold,
            )
            made = SessionSettings(
                system=system_text(system_prompt, self.engine.model.details, "realtime"),
                sampling=sampling,
                tokens_per_second=max_tokens_per_turn,
                max_new_tokens=max_new_tokens,
                encode_on_arrival=self.engine.model.device.type == "cuda",
                keep_events=False,
            )
            generator = self._register(RealtimeGenerator(self.engine, self.tokenizer, settings or made))
        except Exception as error:
            token_queue.put(f"{ERROR} {error}")  # whoever listens must not wait for ever
            raise
        try:
            return generator.run(image_queue, prompt_queue, Fragments(token_queue, mark_round_ends))
        finally:
            with self._lock:
                self._running, self._ended = None, time.monotonic()

    def _register(self, generator: RealtimeGenerator) -> RealtimeGenerator:
        """The one that `stop_real_time_generate` ends."""
        with self._lock:
            if self._running is not None:
                raise InputError("real_time_generate is running already; stop it first, or load a second model")
            self._running = generator
            if time.monotonic() - self._early_stop < EARLY and threading.current_thread() in self._begun:
                generator.stop()
            self._early_stop = -math.inf
        return generator

    def stop_real_time_generate(self) -> None:
        """End the running `real_time_generate` at its next token, from any thread.

        Where none runs, one is meant that begins within a second in another thread that is there already (it was started and has
        not come so far), unless one has ended within the last second: then the stop was for that one.
        """
        with self._lock:
            running, now = self._running, time.monotonic()
            if running is None and now - self._ended >= EARLY:
                self._early_stop = now
                self._begun = weakref.WeakSet(set(threading.enumerate()) - {threading.current_thread()})
        if running is not None:
            running.stop()
