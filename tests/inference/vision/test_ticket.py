"""Frames handed in one by one: in order, together where they wait, and dropped without a trace."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VisionMode, vision_mode
from inference.vision.region import Region
from inference.vision.ticket import Encoded
from model.errors import InputError
from tests.inference.vision.towers import published, random_frames, vision_encoder

FRAMES = random_frames(12)


class _Busy:
    """An event of a device that is not through yet."""

    done = False

    def query(self) -> bool:
        return self.done


def _hold(encoder: FrameEncoder) -> _Busy:
    """From now on the encoder runs something; on a GPU a call does that by itself."""
    event: Any = _Busy()
    encoder._running = Encoded(torch.empty(0), None, event)
    return event  # type: ignore[no-any-return]


def test_on_a_cpu_a_frame_is_encoded_when_it_is_handed_in() -> None:
    vision = vision_encoder()
    ticket = FrameEncoder(vision).submit(FRAMES[0])
    assert ticket.ready
    torch.testing.assert_close(ticket.features(), published(vision, FRAMES[:1]), atol=1e-5, rtol=0)
    assert ticket.raw_kv() is None
    with pytest.raises(InputError, match=r"frames have the shape \[1, 3, 16, 16\]"):
        FrameEncoder(vision).submit(FRAMES[0, :, :16, :16])


def test_frames_that_wait_share_calls() -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, chunk=4)
    busy = _hold(encoder)
    tickets = [encoder.submit(frame) for frame in FRAMES[:6]]
    assert not any(ticket.ready for ticket in tickets)
    busy.done = True
    assert tickets[5].ready
    assert [len(t._job.encoded.features) for t in tickets if t._job.encoded] == [4, 4, 4, 4, 2, 2]
    torch.testing.assert_close(torch.cat([t.features() for t in tickets]), published(vision, FRAMES[:6]), atol=1e-5, rtol=0)


def test_features_are_had_at_once_even_if_the_encoder_is_busy() -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, chunk=2)
    _hold(encoder)
    tickets = [encoder.submit(frame) for frame in FRAMES[:5]]
    torch.testing.assert_close(tickets[2].features(), published(vision, FRAMES[2:3]), atol=1e-5, rtol=0)
    assert [t._job.encoded is not None for t in tickets] == [True, True, True, True, True]


@given(
    actions=st.lists(st.tuples(st.sampled_from(["submit", "cancel", "use", "free", "hold"]), st.integers(0, 11)), max_size=25),
    chunk=st.integers(1, 3),
    sizes=st.sampled_from([None, (1, 2)]),
    mode=st.sampled_from([VisionMode(), VisionMode(valid_rows=True), vision_mode("exact", near_duplicate=4.0)]),
)
def test_whatever_happens_every_claim_is_to_its_own_frame(
    actions: list[tuple[str, int]], chunk: int, sizes: tuple[int, ...] | None, mode: VisionMode
) -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, mode=mode, chunk=chunk, graph_sizes=sizes)
    clips = [encoder.new_clip(), encoder.new_clip()]
    expected = published(vision, FRAMES)
    held: list[tuple[int, Any]] = []
    cancelled = []
    busy = _hold(encoder)
    for action, number in actions:
        if action == "submit":
            held.append((number, encoder.submit(FRAMES[number], clip=clips[number % 2])))
        elif action == "free":
            busy.done = True
        elif action == "hold":
            busy = _hold(encoder)
        elif held and action == "cancel":
            ticket = held.pop(number % len(held))[1]
            cancelled.append(ticket)
            ticket.cancel()
            ticket.cancel()
        elif held:
            frame, ticket = held[number % len(held)]
            torch.testing.assert_close(ticket.features(), expected[frame : frame + 1], atol=1e-5, rtol=0)
            assert ticket.ready
        waiting = {id(job) for job in encoder._waiting}
        assert waiting == {id(t._job) for _, t in held if t._job.encoded is None}
        assert len(waiting) == len(encoder._waiting)
    for frame, ticket in held:
        torch.testing.assert_close(ticket.features(), expected[frame : frame + 1], atol=1e-5, rtol=0)
    for ticket in cancelled:
        assert not ticket.ready
        with pytest.raises(RuntimeError, match="cancelled"):
            ticket.features()


def test_a_call_that_fails_is_the_affair_of_its_frames_alone() -> None:
    vision = vision_encoder()
    failing = True

    def project(features: torch.Tensor) -> torch.Tensor:
        if failing:
            raise RuntimeError("out of memory")
        return features

    encoder = FrameEncoder(vision, chunk=2, key_value=[project], mode=vision_mode("exact", near_duplicate=4.0))
    clip = encoder.new_clip()
    busy = _hold(encoder)
    tickets = [encoder.submit(frame, clip=clip) for frame in FRAMES[:2]]
    other = encoder.submit(FRAMES[2])
    busy.done = True
    late = encoder.submit(FRAMES[3])  # another session's launch takes them along
    assert all(ticket.ready for ticket in (*tickets, other, late)) and not encoder._waiting
    for ticket in (tickets[0], late):
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            ticket.features()
        assert "in project" in "".join(caught.value.__notes__)
    tickets[1].cancel()
    other.cancel()
    failing = False
    # The same picture again is no duplicate of one that was never encoded.
    again = encoder.submit(FRAMES[1], clip=clip)
    torch.testing.assert_close(again.features(), published(vision, FRAMES[1:2]), atol=1e-5, rtol=0)
    assert encoder.submit(FRAMES[1], clip=clip)._job is again._job


def test_keys_and_values_without_positions() -> None:
    vision = vision_encoder()
    matrices = [torch.randn(16, vision.config.text.hidden_size) for _ in range(2)]
    encoder = FrameEncoder(vision, key_value=[functools.partial(F.linear, weight=m) for m in matrices], graph_sizes=(1,))
    raw = encoder.submit(FRAMES[0]).raw_kv()
    expected = torch.stack([published(vision, FRAMES[:1]) @ m.T for m in matrices])
    assert raw is not None
    torch.testing.assert_close(raw, expected, atol=1e-4, rtol=1e-5)


def test_several_threads_hand_in_frames() -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, chunk=2, graph_sizes=(1,))
    found: dict[int, torch.Tensor] = {}

    def source(number: int) -> None:
        for i in range(number, 12, 3):
            found[i] = encoder.submit(FRAMES[i]).features()

    threads = [threading.Thread(target=source, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat([found[i] for i in range(12)]), published(vision, FRAMES), atol=1e-5, rtol=0)


def test_frames_take_the_smallest_region_that_was_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, mode=VisionMode(valid_rows=True), chunk=2)
    run, regions = encoder.tower.run, []
    monkeypatch.setattr(encoder.tower, "run", lambda pixels, region: regions.append(region) or run(pixels, region))

    def computed(frame: torch.Tensor) -> Region:
        encoder.submit(frame).features()
        return regions[-1]

    wide, low, tall = (random_frames(1, height=height)[0] for height in (18, 8, 32))
    assert computed(low) == Region(1, 4)  # nothing is prepared: a region of its own
    encoder.warm_up()
    assert set(regions[1:]) == {Region(3, 4), Region(4, 4)}
    assert [computed(frame) for frame in (wide, low, tall)] == [Region(3, 4), Region(3, 4), Region(4, 4)]
    encoder.warm_up(encoder.new_clip(8, 32))
    assert computed(low) == Region(1, 4)
    torch.testing.assert_close(encoder.submit(tall).features(), published(vision, tall[None]), atol=1e-5, rtol=0)


def test_every_thread_that_encodes_may_compile_as_many_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's settings are those of a thread: one that only set its own would break frames handed in elsewhere."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    encoder, found = FrameEncoder(vision_encoder(), compile_layers="default"), []

    def encode() -> None:
        encoder.submit(FRAMES[0]).features()
        limits: Any = torch._dynamo.config
        found.append(limits.recompile_limit)

    thread = threading.Thread(target=encode)
    thread.start()
    thread.join()
    assert found == [128]
