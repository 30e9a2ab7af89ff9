"""One run of the streaming command: source, session, sinks and a person at the keyboard, put together."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.cache.policies.arguments import policy_from
from inference.cache.policies.policy import CachePolicy
from inference.commands import EXIT_INTERRUPTED, load_engine, sampling_from, system_text
from inference.evaluation.schema import Trace, TraceEvent
from inference.session.arrivals import Arrival, merge
from inference.session.attentive import attentive
from inference.session.clock import VirtualClock, WallClock
from inference.session.inbox import Inbox
from inference.session.pacing import trained_pace
from inference.session.settings import SessionSettings
from inference.sinks import EventSink, Sinks, SubtitleSink, TerminalSink, TraceSink
from inference.sinks.statistics import StreamStatistics
from inference.sources import SourcePump, open_source, schedule
from inference.sources.address import shown_address
from inference.sources.source import FrameSource
from model.errors import InputError

if TYPE_CHECKING:
    import torch

    from inference.console.keyboard import KeyInput, LineInput
    from inference.console.live_view import LiveView
    from inference.sampling import SamplingConfig
    from inference.session.loop import RealtimeSession


def _policy_of(args: argparse.Namespace) -> CachePolicy | None:
    """What the session forgets; None: nothing."""
    policy = policy_from(args)
    return None if policy == CachePolicy() else policy


class StreamRun:
    """What `run` needs, made before the stream begins, so that bad input shows at once.

    Args:
        args: of the command.
        name: of the source.
        prompts: (seconds, text) of what is said by schedule.

    Raises:
        InputError: from any part.
    """

    def __init__(self, args: argparse.Namespace, name: str, prompts: Sequence[tuple[float, str]]) -> None:
        self.args, self.name = args, name
        sampling, policy = sampling_from(args, args.silence_threshold), _policy_of(args)
        self.engine, self.tokenizer = load_engine(args, realtime=True)
        model = self.engine.model
        self.source = open_source(name, fps=args.fps, size=model.config.vision.image_size, follow=args.follow)
        self.settings = self._make_settings(sampling, policy)
        self.clock = VirtualClock() if args.virtual_clock else WallClock()
        self.statistics = StreamStatistics()
        self.prompts = sorted([*prompts, *self.source.prompts])
        self.metrics: dict[str, Any] = {}
        self.view: LiveView | None = None
        self.session: RealtimeSession | None = None
        self.sinks = self._make_sinks()

    def run(self) -> int:
        """Stream to the end; returns the exit code."""
        whole = False
        try:
            self._run_virtually() if isinstance(self.clock, VirtualClock) else self._run_live(self.clock)
            whole = True
        finally:
            self.sinks.close(whole=whole)  # an error or an interruption is said on a line of its own
        assert self.session is not None
        if not self.args.virtual_clock:
            _print_delays(self.metrics)
        return EXIT_INTERRUPTED if self.session.end_reason == "interrupted" else 0

    def take(self, event: TraceEvent) -> None:
        """Every event of the session."""
        if self.view is None:
            self.statistics.feed(event)  # a live view feeds them under its lock
        if event.kind == "end":
            self.metrics = event.metrics or {}
        self.sinks(event)

    def _run_virtually(self) -> None:
        inbox = Inbox(merge(self._scheduled_prompts(), schedule(self.source, self.clock)))
        self.session = self._make_session(inbox)
        ends = [self.source.duration or 0.0, *(t for t, _ in self.prompts)]
        with _interruptible(inbox):
            self.session.run(until=max(ends) + self.args.idle_timeout)

    def _run_live(self, clock: WallClock) -> None:
        inbox = Inbox(self._scheduled_prompts(), live=True)
        self.session = self._make_session(inbox)
        producers = _Producers(inbox.close)
        tap = self.view.tap if self.view is not None else None
        ended = producers.add()
        pump = SourcePump(
            self.source,
            inbox,
            clock,
            fps=self.args.fps,
            tap=tap,
            on_end=lambda: ended() if pump.error is None else inbox.end("source_lost"),
        )
        keyboard = self._make_keyboard(inbox, producers) if self.args.interactive else None
        if self.settings.encode_on_arrival:
            self.engine.encoder.warm_up()  # before time begins to count
        clock.start()
        try:
            with _interruptible(inbox), attentive():
                if self.view is not None:
                    self.view.start()
                if keyboard is not None:
                    keyboard.start()
                pump.start()
                self.session.run()
        finally:
            pump.stop()
            if keyboard is not None:
                keyboard.stop()
        pump.raise_error()
        if pump.late:
            print(f"{pump.late} frames came late: the machine did not keep up with --fps {self.args.fps:g}", file=sys.stderr)

    def _make_settings(self, sampling: SamplingConfig, policy: CachePolicy | None) -> SessionSettings:
        args, model = self.args, self.engine.model
        pace = trained_pace(model.details, f"checkpoint {args.checkpoint}") if args.trained_pace else None
        per_second = args.tokens_per_second
        return SessionSettings(
            system=system_text(args.system_prompt, model.details, "realtime"),
            sampling=sampling,
            tokens_per_second=16.0 * args.fps if per_second is None and pace is None and args.virtual_clock else per_second,
            tokens_per_frame=None if pace is None else pace.tokens_per_frame,
            frame_seconds=1.0 if pace is None else pace.frame_seconds,
            max_new_tokens=args.max_new_tokens,
            idle_timeout=args.idle_timeout,
            max_frames=args.max_frames,
            queue_policy=args.queue_policy,
            max_pending_frames=args.max_pending_frames,
            policy=policy,
            encode_on_arrival=not args.virtual_clock and (args.encode_on_arrival or model.device.type == "cuda"),
            keep_events=False,
        )

    def _scheduled_prompts(self) -> list[Arrival]:
        return [Arrival(t=t, prompt=text) for t, text in self.prompts]

    def _make_session(self, inbox: Inbox) -> RealtimeSession:
        from inference.session.loop import RealtimeSession

        return RealtimeSession(self.engine, self.tokenizer, inbox, self.clock, self.settings, self.take)

    def _make_sinks(self) -> Sinks:
        args = self.args
        sinks: list[EventSink] = []
        if args.trace:
            sinks.append(TraceSink(args.trace, self._trace_header(), self._trace_details))
        if args.srt:
            sinks.append(SubtitleSink(args.srt))
        if sys.stdout.isatty() and not args.plain and not args.virtual_clock:
            from rich.console import Console

            from inference.console.live_view import LiveView

            self.view = LiveView(Console(), self.clock, self.statistics, show_frames=args.show_frames)
            return Sinks([*sinks, self.view])
        self._lines = TerminalSink(sys.stdout)
        return Sinks([*sinks, self._lines])

    def _make_keyboard(self, inbox: Inbox, producers: _Producers) -> KeyInput | LineInput:
        from inference.console.intents import Operator
        from inference.console.keyboard import KeyInput, LineInput, is_terminal

        show = self.view.show if self.view is not None else self._lines.write_line
        operator = Operator(inbox, self.clock, self.statistics, show)
        ended = producers.add()
        if self.view is None or not is_terminal(sys.stdin):
            return LineInput(sys.stdin, operator.act, ended)
        keys = KeyInput(sys.stdin.fileno(), operator.act, self.view.refresh)
        self.view.editor = keys.editor
        return keys

    def _trace_header(self) -> Trace:
        details = {
            "checkpoint": self.args.checkpoint,
            "clock": "virtual" if self.args.virtual_clock else "wall",
            "fps": self.args.fps,
            "source": shown_address(self.name),
            "session": self.settings.as_dict(),
        }
        return Trace(scenario_id=Path(self.name).stem or self.name, mode="push", engine=details)

    def _trace_details(self) -> dict[str, Any]:
        assert self.session is not None
        return {"frames": self.session.ledger.as_dict(), "end": self.session.end_reason}


class _Producers:
    """Calls `close` once every one of the threads that push into an inbox has ended."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._running = 0
        self._lock = threading.Lock()

    def add(self) -> Callable[[], None]:
        """One more; the returned function is called at its end, once."""
        with self._lock:
            self._running += 1
        return self._end

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            over = self._running == 0
        if over:
            self._close()


@contextmanager
def _interruptible(inbox: Inbox) -> Iterator[None]:
    """Ctrl-C ends the stream as `/quit` does, so that files become whole; a second one ends the program at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        # In a thread: this handler may have interrupted the very code that holds the inbox's lock.
        threading.Thread(target=inbox.end, args=("interrupted",), daemon=True).start()

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _print_delays(metrics: dict[str, Any]) -> None:
    """Delays of a run in real time, to stderr."""
    for name in ("frame_latency", "staleness", "first_token", "barge_in"):
        if metrics.get(name):
            values = "  ".join(f"{key} {value * 1000:.0f} ms" for key, value in metrics[name].items())
            print(f"{name}: {values}", file=sys.stderr)


class _FramesAgain:
    """A source's frames by number, drawn as they are asked for, in increasing order; a replay skips those that were dropped."""

    def __init__(self, source: FrameSource) -> None:
        self._frames = enumerate(schedule(source, VirtualClock()))

    def __getitem__(self, number: int) -> torch.Tensor:
        for reached, arrival in self._frames:
            if reached == number and arrival.frame is not None:
                return arrival.frame
        raise IndexError(number)


def replay(args: argparse.Namespace, name: str) -> int:
    """Run the stream of a trace again; returns 0 where every token is the same, else 1.

    Raises:
        InputError: the trace cannot be read, is not that of one stream, or lacks a frame in the source; the source is live.
    """
    from inference.evaluation.storage import load_traces

    traces = load_traces(args.replay)
    if len(traces) != 1 or traces[0].mode != "push":
        raise InputError(f"--replay {args.replay} holds {len(traces)} traces; give one that `moss stream --trace` wrote")
    from inference.session.replay import replay_trace

    engine, tokenizer = load_engine(args, realtime=True)
    fps = float(traces[0].engine.get("fps", args.fps))
    source = open_source(name, fps=fps, size=engine.model.config.vision.image_size)
    if source.live:
        raise InputError(f"{source.name} is live and cannot be shown again; give --replay a --source that was recorded")
    report = replay_trace(traces[0], _FramesAgain(source), engine, tokenizer)
    cut = all(event.kind != "end" for event in traces[0].events)
    if report.difference is not None and not (cut and report.difference.recorded is None):
        print(f"{args.replay}: {report.difference.describe()}")
        return 1
    print(f"{args.replay}: the same to the token, {report.compared} events")
    return 0
