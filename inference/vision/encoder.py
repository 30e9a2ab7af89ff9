"""The frame encoder of inference: whole clips at once, or frames one by one as they arrive."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inference.vision.attention.choose import choose_backend
from inference.vision.chunks import Piece, split_frames
from inference.vision.clip import Clip
from inference.vision.device import EncoderStreams
from inference.vision.duplicates import DuplicateFilter
from inference.vision.mode import VisionMode
from inference.vision.region import Region, detect_region, region_of_size, whole
from inference.vision.static import Outputs, StaticCall
from inference.vision.ticket import Encoded, FrameTicket, Job
from inference.vision.tower import Tower
from model.errors import InputError
from model.vision.encoder import VisionEncoder

CHUNK = 32
"""Frames in one call on CUDA: about 1.7 GB of activations at 560 pixels, and products large enough to reach their full speed."""

CPU_CHUNK = 8
GRAPH_SIZES = (1, 2, 4, 8)
"""Sizes that become CUDA graphs: a call of 40 layers is about 400 launches, more than one frame's 4 ms of work."""

WIDESCREEN = 9 / 16
"""Height over width of the pictures that `warm_up` expects unless it is told."""

MAX_REGIONS = 8
"""Regions for which calls are prepared; frames of further ones are computed whole."""


class FrameEncoder:
    """Runs the weights of a `VisionEncoder`.

    Exact mode gives its numbers (1e-5 in fp32) whatever the chunk; the other modes leave things out (`VisionMode`).

    Args:
        encoder: in its final dtype and on its device.
        mode: what may be left out.
        chunk: frames in a full call; None: 32 on CUDA, 8 elsewhere.
        graph_sizes: smaller calls on static buffers, captured on CUDA when first used (`warm_up` does it ahead); None: 1, 2, 4, 8
            on CUDA, none elsewhere.
        attention: a backend of `inference.vision.attention.choose`, or `auto`.
        compile_layers: off | default | autotune; None: default on CUDA, off elsewhere.
        joint_gelu: gelu inside the product before it, by a kernel of ours for Hopper; None: where that is faster.
        fused: what lies between products (residual sums, norms, gelu, rounding to fp8) in kernels of ours, which also round where
            the published modules do; None: on CUDA in 16 bits.
        key_value: the cross layers' joint key and value projections; with them tickets have `raw_kv()`.

    Raises:
        InputError: a bad argument, or a backend that cannot be used here.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        *,
        mode: VisionMode | None = None,
        chunk: int | None = None,
        graph_sizes: Sequence[int] | None = None,
        attention: str = "auto",
        compile_layers: str | None = None,
        joint_gelu: bool | None = None,
        fused: bool | None = None,
        key_value: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        self.mode = mode or VisionMode()
        device, cuda = encoder.multi_modal_projector.weight.device, encoder.multi_modal_projector.weight.is_cuda
        self.chunk = chunk if chunk is not None else CHUNK if cuda else CPU_CHUNK
        if self.chunk < 1:
            raise InputError(f"the vision chunk is {self.chunk} frames; it must be at least 1")
        vision = encoder.config.vision
        backend = choose_backend(attention, device, encoder.dtype, vision.hidden_size // vision.num_attention_heads)
        choice = compile_layers if compile_layers is not None else "default" if cuda else "off"
        self.tower = Tower(
            encoder,
            backend,
            fp8=self.mode.fp8,
            compile_layers=choice,
            joint_gelu=joint_gelu,
            fused=fused,
            repeat_keys=self.mode.repeat_keys,
            full=self.chunk,
        )
        self.attention = backend.name
        self._fixed = cuda or graph_sizes is not None
        self._sizes = tuple(graph_sizes if graph_sizes is not None else GRAPH_SIZES if cuda else ())
        self._key_value = tuple(key_value)
        self._streams = EncoderStreams(device)
        self._streams.follow()
        self._memory = torch.cuda.graph_pool_handle() if cuda else None
        self._static: dict[tuple[int, Region], StaticCall] = {}
        self._whole = whole(vision)
        # Where nothing is pooled every patch is a token of its own, and none can stand for others.
        self._cuts = self.mode.valid_rows and vision.pool_mode != "none"
        self._regions = {self._whole}
        self._prepared: set[Region] = set()
        self._waiting: list[Job] = []
        self._running: Encoded | None = None
        self._lock = threading.RLock()

    @property
    def vision(self) -> VisionEncoder:
        """The encoder whose weights are used."""
        return self.tower.encoder

    def new_clip(self, height: int | None = None, width: int | None = None) -> Clip:
        """State for the frames of one source, in order.

        Args:
            height, width: pixels of the picture inside the frame (`fitted_size` of the source's); with them no frame is searched
                for padding. Only `valid_rows` looks at it.

        Raises:
            InputError: a size outside the frame.
        """
        vision = self.tower.config.vision
        level = self.mode.near_duplicate
        duplicates = None if level is None else DuplicateFilter(level)
        if not self._cuts:
            return Clip(whole(vision), False, duplicates=duplicates)
        region = None if height is None or width is None else region_of_size(height, width, vision)
        return Clip(region, region is None, duplicates=duplicates)

    @torch.inference_mode()
    def encode(self, frames: Tensor, aspect_ratio_ids: Tensor | None = None, *, clip: Clip | None = None) -> Tensor:
        """Features of frames that are all there.

        Args:
            frames: uint8 [F, 3, S, S], padded at the bottom and right with 0; or floating point and normalised, which is always
                computed whole. In the host's memory or on the device. Page-locked frames are copied from where they are, after
                this returns: do not write to them before the features are there.
            aspect_ratio_ids: int64 [F]; 1 for real frames (default), 0 for padding frames. Others than 1 are computed whole.
            clip: what came before, where frames of one source come in several calls.

        Returns:
            [F, P, H], ready for the current stream.

        Raises:
            InputError: another shape than [F, 3, S, S].
        """
        self._check(frames)
        ids = None if aspect_ratio_ids is None or bool((aspect_ratio_ids == 1).all()) else aspect_ratio_ids
        clip = clip or self.new_clip()
        vision = self.tower.config.vision
        out = torch.empty(0, vision.tokens_per_frame, self.tower.config.text.hidden_size, device=self.tower.device)
        if not len(frames):
            return out.to(self.tower.dtype)
        if clip.duplicates is not None and ids is None:
            # Compared in the host's memory: fetched at once, before anything is launched.
            tickets = [self.submit(frame, clip=clip) for frame in frames.cpu()]
            return torch.cat([ticket.features() for ticket in tickets])
        if frames.is_cuda:
            self._search(frames, clip)  # once, before anything is launched: the host waits for it
        with self._lock, self._streams.computing(frames):
            found = [self._piece(frames, piece, ids, clip) for piece in self._pieces(len(frames))]
            features = found[0] if len(found) == 1 else torch.cat(found)
        return self._streams.hand_over(features)

    def encode_clips(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Features of frames of several clips: in one call where that changes nothing, otherwise clip by clip.

        Args:
            clips: uint8 [f, 3, S, S] each.

        Returns:
            [f, P, H] for each.
        """
        if len(clips) < 2 or self._cuts or self.mode.near_duplicate is not None:
            return [self.encode(frames) for frames in clips]
        return list(self.encode(torch.cat(list(clips))).split([len(frames) for frames in clips]))

    @torch.inference_mode()
    def submit(self, frame: Tensor, *, clip: Clip | None = None) -> FrameTicket:
        """Hands in one frame to be encoded as soon as the encoder is free; never waits. Any thread may call it.

        Frames that arrive while a call runs wait, and share the next one. On a CPU the frame is encoded here and now.
        Once regions are warmed up, the smallest of them that holds the picture is computed: no frame waits for a compiler.
        What goes wrong when a call is launched is raised by the tickets of its frames, not here: it may be another session's.

        Args:
            frame: uint8 [3, S, S]; not to be written to afterwards. One on a GPU is never compared with the one before it.
            clip: the session's, from `new_clip`.

        Raises:
            InputError: another shape than [3, S, S].
        """
        self._check(frame[None])
        clip = clip or self.new_clip()
        with self._lock:
            last = clip.last
            if clip.duplicates is not None:
                if last is None or last.cancelled or last.error is not None or frame.is_cuda:
                    clip.duplicates.forget()
                # Fetching a frame from a GPU would wait for all that is under way there.
                if not frame.is_cuda and clip.duplicates.is_duplicate(frame) and last is not None:
                    return FrameTicket(last, self._advance, self._withdraw)
            waits = clip.detect and frame.is_cuda  # a search would wait for the device
            if not waits:
                self._search(frame[None], clip)
            job = clip.last = Job(frame, self._whole if waits else self._ready(self._region(frame[None], clip)))
            self._waiting.append(job)
            ticket = FrameTicket(job, self._advance, self._withdraw)
            self._advance(None)
        return ticket

    @torch.inference_mode()
    def warm_up(self, clip: Clip | None = None) -> None:
        """Compiles and captures calls ahead, so that no frame pays for it.

        Args:
            clip: its region is prepared; None: the whole frame, and 16:9 pictures where padding is left out.
        """
        vision = self.tower.config.vision
        regions = {(clip and clip.region) or self._whole}
        if clip is None and self._cuts:
            regions.add(region_of_size(round(WIDESCREEN * vision.image_size), vision.image_size, vision))
        frames = torch.zeros(self.chunk, *self._shape(), dtype=torch.uint8, device=self.tower.device)
        with self._lock, self._streams.computing(frames):
            for region in regions:
                for size in self._sizes:
                    self._call(size, region)
                self._outputs(self._streams.upload(self._cut(frames, region), self.chunk), region)
            self._prepared |= regions

    def _check(self, frames: Tensor) -> None:
        if frames.ndim != 4 or tuple(frames.shape[1:]) != self._shape():
            expected = ", ".join(map(str, self._shape()))
            raise InputError(f"frames have the shape {list(frames.shape)}; this checkpoint takes [F, {expected}]")

    def _shape(self) -> tuple[int, int, int]:
        vision = self.tower.config.vision
        return vision.num_channels, vision.image_size, vision.image_size

    def _pieces(self, frames: int) -> list[Piece]:
        return list(split_frames(frames, self.chunk, self._sizes, fixed=self._fixed))

    def _cut(self, frames: Tensor, region: Region) -> Tensor:
        patch = self.tower.config.vision.patch_size
        return frames[:, :, : region.rows * patch, : region.columns * patch]

    def _search(self, frames: Tensor, clip: Clip) -> None:
        """Lets the clip's region grow by the pictures of these frames, where nobody said how large they are."""
        if clip.detect and not frames.is_floating_point():
            found = detect_region(frames, self.tower.config.vision)
            clip.region = found if clip.region is None else clip.region.union(found)

    def _region(self, frames: Tensor, clip: Clip) -> Region:
        """What is computed of these frames of a clip that knows its region."""
        if not self._cuts or frames.is_floating_point():
            return self._whole
        region = clip.region or self._whole
        if region not in self._regions and len(self._regions) >= MAX_REGIONS:
            return self._whole
        self._regions.add(region)
        return region

    def _ready(self, region: Region) -> Region:
        """The smallest prepared region that holds this one; itself where none does."""
        holding = [one for one in self._prepared if one.union(region) == one]
        return min(holding, key=lambda one: one.rows * one.columns, default=region)

    def _piece(self, frames: Tensor, piece: Piece, ids: Tensor | None, clip: Clip) -> Tensor:
        """[frames of the piece, P, H]"""
        part = frames[piece.begin : piece.begin + piece.frames]
        if ids is None:
            if not part.is_cuda:
                self._search(part, clip)
            return self._call_for(part, piece, self._region(part, clip))[0][: piece.frames]
        own = ids[piece.begin : piece.begin + piece.frames].to(self.tower.device)
        own = torch.cat([own, own.new_ones(piece.size - piece.frames)])
        return self.tower.run(self._streams.upload(part, piece.size), self._whole, own)[: piece.frames]

    def _call_for(self, frames: Tensor, piece: Piece, region: Region) -> Outputs:
        """One call of the tower; padding frames of the piece come out too."""
        if piece.size in self._sizes and frames.dtype == torch.uint8:
            call = self._call(piece.size, region)
            self._streams.fill(self._cut(frames, region), call.pixels)
            return call.run()
        return self._outputs(self._upload(frames, piece.size, region), region)

    def _upload(self, frames: Tensor, size: int, region: Region) -> Tensor:
        """What the tower reads of these frames, on the device."""
        if region != self._whole and not frames.is_cuda and frames.is_pinned():
            # Whole frames travel in less time than the host takes to cut them.
            return self._cut(self._streams.upload(frames, size), region).contiguous()
        return self._streams.upload(self._cut(frames, region), size)

    def _call(self, size: int, region: Region) -> StaticCall:
        key = (size, region)
        if key not in self._static:
            shape = self._cut(torch.empty(size, *self._shape(), device="meta"), region).shape
            pixels = torch.zeros(shape, dtype=torch.uint8, device=self.tower.device)
            self._static[key] = StaticCall(
                lambda given: self._outputs(given, region), pixels, self._streams.compute, self._memory
            )
        return self._static[key]

    def _outputs(self, pixels: Tensor, region: Region) -> Outputs:
        features = self.tower.run(pixels, region)
        raw = torch.stack([project(features) for project in self._key_value]) if self._key_value else None
        return features, raw

    def _advance(self, wanted: Job | None) -> None:
        """Launches frames that wait: if the encoder is idle, or until `wanted` is launched."""
        with self._lock:
            while self._waiting and (
                (self._running is None or self._running.ready) or (wanted is not None and not wanted.launched)
            ):
                self._launch()

    @torch.inference_mode()
    def _launch(self) -> None:
        """One call for the frames that waited longest and have the same region, of whatever session."""
        first = self._waiting[0]
        alike = next((i for i, job in enumerate(self._waiting) if job.region != first.region), len(self._waiting))
        piece = self._pieces(min(alike, self.chunk))[0]
        jobs, self._waiting = self._waiting[: piece.frames], self._waiting[piece.frames :]
        frames = [job.frame for job in jobs if job.frame is not None]
        try:
            with self._streams.computing(*frames):
                # One frame goes from where it is: stacked, a page-locked one would be copied twice more on the host.
                together = frames[0][None] if len(frames) == 1 else torch.stack(frames)
                features, raw = self._call_for(together, piece, first.region)
                encoded = Encoded(features, raw, self._streams.mark())
        except Exception as error:
            error.add_note(traceback.format_exc())
            for job in jobs:  # without the traceback, which holds the call's memory
                job.error, job.frame = error.with_traceback(None), None
            return
        for index, job in enumerate(jobs):
            job.encoded, job.index, job.frame = encoded, index, None
        self._running = encoded

    def _withdraw(self, job: Job) -> None:
        with self._lock:
            job.holders -= 1
            if job.holders == 0 and not job.launched:
                job.cancelled = True
                self._waiting.remove(job)
