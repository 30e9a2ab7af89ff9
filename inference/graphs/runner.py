"""Steps of up to 256 rows on static buffers, a CUDA graph for each bucket of rows; longer ones eagerly into the same buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inference.cache.store import KVStore
from inference.graphs.readout import ReadOut, TokenRead
from inference.graphs.record import Recorder
from inference.graphs.tables import SessionTables
from inference.graphs.upload import Upload
from inference.model.plan import StepPlan
from inference.model.rows import FIELDS, RowGroup, StepRows
from inference.model.video_mllama import VideoMllama
from inference.sampling import GraphSampler, Sampler, SamplingPath

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of sessions for which there are graphs; of rows too, captured when first needed."""
ROW_BUCKETS = (*BUCKETS, 128, 256)
"""Numbers of rows for which there may be graphs. Those of prompts, above 64, are captured by `prepare` alone, as a capture takes
longer than an eager step. Of still longer prompts the device computes for longer than the host launches: no graph would help."""
FRAME_BUCKETS = (1, 2, 4, 8)
"""Numbers of new frames that have graphs; more are written eagerly."""
LONG_ROWS = 1024
"""A step of so many rows takes the kernels of the longest prompts, whose keys are not shared out among programs."""
MOST_SESSIONS = BUCKETS[-1]
"""In one launch."""
SESSIONS = 256
"""Sessions whose tables stay on the device."""
GPU_WIDTHS = (2048, 16384)
"""Pages that the tables of a session have room for on a GPU: 131072 rows and 16384 frames, 19 MB in all."""


@dataclass
class Feed:
    """What one session contributes to a launch. Its cache has room reserved."""

    group: RowGroup
    sampler: Sampler
    follows: bool = False
    """The one row's token is what the session's last launch sampled, not read yet; the group's own token is ignored."""


@dataclass
class Launch:
    """A step that was enqueued: its tokens, in the order of its feeds."""

    read: TokenRead


@dataclass(frozen=True)
class _Key:
    """What a graph of a step depends on."""

    rows: int
    outputs: int
    path: SamplingPath


@dataclass
class _Inputs:
    """The integers of a step as they lie in one int32 tensor; all but `packed` are views of it."""

    packed: torch.Tensor
    pages: torch.Tensor
    positions: torch.Tensor
    """[frames] of the new frames."""
    fields: torch.Tensor
    """[len(FIELDS), rows]"""
    last: torch.Tensor
    """[outputs] row whose logits each session's token is chosen from."""
    sessions: torch.Tensor
    """[outputs] row of each session in the tables."""

    @classmethod
    def of(cls, packed: torch.Tensor, frames: int, rows: int, outputs: int) -> _Inputs:
        pages, positions, fields, last, sessions, _ = packed.split(_parts(len(packed), frames, rows, outputs))
        return cls(packed, pages, positions, fields.view(len(FIELDS), rows), last, sessions)


def _parts(total: int, frames: int, rows: int, outputs: int) -> list[int]:
    """Lengths of the parts of a step's integers, the unused rest last."""
    used = [frames, frames, len(FIELDS) * rows, outputs, outputs]
    return [*used, total - sum(used)]


def _pack(plan: StepPlan, sessions: Sequence[int], frames: int, rows: int, outputs: int) -> npt.NDArray[np.int32]:
    """A step's integers. Padding rows are of the scratch session, see nothing and write to the scratch page, as do frames."""
    parts = _parts(0, frames, rows, outputs)[:-1]
    packed = np.zeros(sum(parts), dtype=np.int32)
    pages, positions, fields, last, owners = np.split(packed, np.cumsum(parts)[:-1])
    pages[: len(plan.frame_pages)] = plan.frame_pages
    positions[: len(plan.frame_positions)] = plan.frame_positions
    plan.pack(fields.reshape(len(FIELDS), rows))
    last[: len(plan.last)] = plan.last
    owners[: len(sessions)] = sessions
    return packed


class GraphRunner:
    """Enqueues steps of one model and one store; nothing here waits for the device.

    Args:
        model: weights and arithmetic.
        store: where all sessions' pages are.
        widths: pages that the tables of a session have room for at first; graphs are captured anew when it gets too little.
    """

    def __init__(self, model: VideoMllama, store: KVStore, widths: tuple[int, int] | None = None) -> None:
        self.model, self.store, self.device = model, store, model.device
        most = BUCKETS[-1]
        config = model.config
        self._upload = Upload(self.device)
        self._recorder = Recorder(self.device)
        self._read_out = ReadOut(most, self.device)
        self.tables = SessionTables(
            SESSIONS, widths or (GPU_WIDTHS if self.device.type == "cuda" else (8, 32)), self.device, self._upload
        )
        self._sampler = GraphSampler(most, config.text.vocab_size, self.device)
        # All integers of a step, in one copy: see `_Inputs`.
        integers = 2 * FRAME_BUCKETS[-1] + len(FIELDS) * ROW_BUCKETS[-1] + 2 * most
        self._inputs = torch.zeros(integers, dtype=torch.int32, device=self.device)
        self._last = torch.zeros(SESSIONS + 1, dtype=torch.int32, device=self.device)  # what each session sampled last
        self.logits = torch.zeros(most, config.text.vocab_size, device=self.device)
        """fp32 [64, vocab_size]: of the last launch's outputs."""
        shape = (FRAME_BUCKETS[-1], config.vision.tokens_per_frame, config.text.hidden_size)
        self._states = torch.zeros(shape, dtype=model.dtype, device=self.device)
        self._graphs: dict[_Key, Callable[[], None]] = {}
        self._prepared: set[_Key] = set()
        self._compiled = False
        self._frame_graphs: dict[int, Callable[[], None]] = {}
        self._built_for: tuple[int, ...] = ()
        self.replayed, self.eager = 0, 0
        """Steps through a graph, and those without."""

    @torch.inference_mode()
    def launch(self, feeds: Sequence[Feed]) -> Launch:
        """Enqueue one step of several sessions; their caches advance, but for those that follow a token not read yet.

        Args:
            feeds: one for each session, at most 64.
        """
        groups = [feed.group for feed in feeds]
        sessions = self.tables.update([group.cache for group in groups])
        self._follow_moves()
        plan = self.model.plan(
            groups, sessions=sessions, sources={i: sessions[i] for i, feed in enumerate(feeds) if feed.follows}
        )
        states = [group.frame_states for group in groups if group.frame_states is not None and group.new_frames]
        whole = torch.cat(states) if len(states) > 1 else (states[0] if states else None)
        if whole is not None and len(whole) > FRAME_BUCKETS[-1]:
            self._add_frames(plan, whole)
            whole = None
        path = self._sampler.load([feed.sampler for feed in feeds], [int(feed.follows) for feed in feeds])
        key = self._key(plan.rows, len(feeds), path)
        if key is not None and (key.rows <= BUCKETS[-1] or key in self._prepared):
            tokens = self._replay(key, plan, sessions, whole)
            self.replayed += 1
        else:
            tokens = self._run_eagerly(plan, sessions, whole, path)
            self.eager += 1
        for feed in feeds:
            if not feed.follows:
                feed.group.cache.advance(len(feed.group.tokens), feed.group.frame_positions)
        return Launch(self._read_out.copy(tokens))

    def check(self, samplers: Sequence[Sampler]) -> None:
        """Refuse samplers that no launch could take, before anything is launched.

        Raises:
            InputError: a silence token outside the vocabulary.
        """
        for sampler in samplers:
            sampler.flags(self._sampler.device, self._sampler.vocab_size)

    @torch.inference_mode()
    def prepare(self, rows: Sequence[int], samplers: Sequence[Sampler]) -> None:
        """Capture graphs before they are needed, the largest first: the others find room in its memory.

        Args:
            rows: numbers of rows that will be fed at once; those above 256 have no graph. With 256 among them the kernels of
                longer prompts are compiled too.
            samplers: one for each session of a step.
        """
        self._follow_moves()
        path = self._sampler.load(samplers)
        if max(rows, default=0) >= ROW_BUCKETS[-1] and not self._compiled and self.device.type == "cuda":
            self.run_padding(LONG_ROWS, path)
            self._compiled = True
        for count in sorted(rows, reverse=True):
            key = self._key(count, len(samplers), path)
            if key is not None:
                self._prepared.add(key)
                self._graph(key)
        for frames in reversed(FRAME_BUCKETS):
            self._frame_graph(frames)

    def run_padding(self, rows: int, path: SamplingPath) -> None:
        """An eager step of rows that see nothing and are seen by nobody, whatever their number."""
        packed = torch.zeros(len(FIELDS) * rows + 2, dtype=torch.int32, device=self.device)
        inputs = _Inputs.of(packed, 0, rows, 1)
        self._decode(inputs, StepRows.of(inputs.fields, self.tables.self_tables, self.tables.cross_tables), path)

    def _key(self, rows: int, outputs: int, path: SamplingPath) -> _Key | None:
        """The smallest graph for a step; None where it has too many rows for any."""
        return None if rows > ROW_BUCKETS[-1] else _Key(_bucket(rows, ROW_BUCKETS), _bucket(outputs, BUCKETS), path)

    def _add_frames(self, plan: StepPlan, states: torch.Tensor) -> None:
        """Write any number of frames into their pages now; the plan is without them afterwards."""
        count = len(plan.frame_pages)
        places = torch.empty(2, count, dtype=torch.int32, device=self.device)  # pages, positions
        self._upload.copy(places.flatten(), np.array(plan.frame_pages + plan.frame_positions, dtype=np.int32))
        self.model.add_frames(states, places[0], places[1], self.store.cross_pool)
        plan.frame_pages, plan.frame_positions = [], []

    def _replay(self, key: _Key, plan: StepPlan, sessions: Sequence[int], states: torch.Tensor | None) -> torch.Tensor:
        """A step on the static buffers, for which the sampler is loaded -> int64 [outputs], a part of a static buffer."""
        # Before the inputs: a capture runs on empty ones.
        graph = self._graph(key)
        write_frames = None if states is None else self._frame_graph(_bucket(len(states), FRAME_BUCKETS))
        self._upload.copy(self._inputs, _pack(plan, sessions, FRAME_BUCKETS[-1], key.rows, key.outputs))
        if write_frames is not None and states is not None:
            self._states[: len(states)].copy_(states)
            write_frames()
        graph()
        return self._sampler.tokens[: len(sessions)]

    def _run_eagerly(
        self, plan: StepPlan, sessions: Sequence[int], states: torch.Tensor | None, path: SamplingPath
    ) -> torch.Tensor:
        """A step of any length, for which the sampler is loaded -> int64 [outputs], a part of a static buffer."""
        if states is not None:
            self._add_frames(plan, states)
        packed = _pack(plan, sessions, 0, plan.rows, len(sessions))
        buffer = torch.empty(len(packed), dtype=torch.int32, device=self.device)
        inputs = _Inputs.of(buffer, 0, plan.rows, len(sessions))
        self._upload.copy(inputs.packed, packed)
        rows = StepRows.of(inputs.fields, self.tables.self_tables, self.tables.cross_tables, plan.self_groups, plan.cross_groups)
        self._decode(inputs, rows, path, attends=plan.attends)
        return self._sampler.tokens[: len(sessions)]

    def _decode(self, inputs: _Inputs, rows: StepRows, path: SamplingPath, *, attends: bool = True) -> None:
        """Rows through the decoder; logits, chosen tokens and what each session sampled last are in their buffers afterwards."""
        tokens, last, outputs = self._tokens(rows), inputs.last.long(), len(inputs.last)
        h = self.model.decode(rows, tokens, self.store.self_pool, self.store.cross_pool, attends=attends)
        logits = self.logits[:outputs].copy_(self.model.logits(h.index_select(0, last)))
        self._sampler.sample(logits, path, _following(rows, tokens, last) if path.penalty else None)
        self._last.index_copy_(0, inputs.sessions.long(), self._sampler.fed[:outputs].int())

    def _tokens(self, rows: StepRows) -> torch.Tensor:
        """int32 [N]: given by the host, or what the row's session sampled last."""
        return torch.where(rows.sources >= 0, self._last.index_select(0, rows.sources.clamp(min=0)), rows.tokens)

    def _graph(self, key: _Key) -> Callable[[], None]:
        if key not in self._graphs:
            self._inputs.zero_()
            self._graphs[key] = self._recorder.record(lambda: self._step(key))
        return self._graphs[key]

    def _step(self, key: _Key) -> None:
        """All of a step, from the static inputs to the static tokens: what a graph holds."""
        inputs = _Inputs.of(self._inputs, FRAME_BUCKETS[-1], key.rows, key.outputs)
        self._decode(inputs, StepRows.of(inputs.fields, self.tables.self_tables, self.tables.cross_tables), key.path)

    def _frame_graph(self, frames: int) -> Callable[[], None]:
        """Writes the keys and values of the first `frames` static states into their pages."""
        if frames not in self._frame_graphs:
            self._inputs.zero_()

            def work() -> None:
                inputs = _Inputs.of(self._inputs, FRAME_BUCKETS[-1], 1, 1)
                pages, positions = inputs.pages[:frames], inputs.positions[:frames]
                self.model.add_frames(self._states[:frames], pages, positions, self.store.cross_pool)

            self._frame_graphs[frames] = self._recorder.record(work)
        return self._frame_graphs[frames]

    def _follow_moves(self) -> None:
        """Forget the graphs when what they address has moved: a pool grew, or the tables."""
        pools = (self.store.self_pool, self.store.cross_pool)
        now = (*(pool.generation for pool in pools), self.tables.generation)
        if now != self._built_for:
            self._graphs.clear()
            self._frame_graphs.clear()
            self._recorder.forget()
            self._built_for = now


def _following(rows: StepRows, tokens: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """int64 [outputs]: the tokens that samplers have not accepted yet, -1 where there are none."""
    return torch.where(rows.sources >= 0, tokens, -1).index_select(0, last).long()


def _bucket(count: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `count`."""
    return next(bucket for bucket in buckets if bucket >= count)
