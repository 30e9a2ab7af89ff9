"""Rendering: the world's convention to the letter, and what tokens make of it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.grammar import pieces_of_tokens, read_stream
from data_pipeline.realtime.layout import lay_out, slots_of
from data_pipeline.realtime.render import to_messages, to_sample
from data_pipeline.realtime.values import dialogue_from_dict
from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
from data_pipeline.text.realtime import slot_lengths, swap_frames
from data_pipeline.text.template import encode_turns
from data_pipeline.world.scene import Clip, eventful
from data_pipeline.world.tasks.realtime import Prompt, draw_prompt, realtime_messages, realtime_sample, script
from tests.data_pipeline.realtime.dialogues import RATES, count, raw_dialogue, tokenizer

SEEDS = st.integers(0, 10_000)


def dialogue_of_clip(clip: Clip, prompt: Prompt | None, system: str) -> Dialogue:
    """What the world's script says, as a dialogue."""
    utterances = tuple(
        Utterance(t=float(line.frame), text=line.text, evidence=(float(line.frame), float(line.frame)), kind=line.kind)
        for line in script(clip, prompt)
    )
    users = (UserTurn(t=prompt.frame - 0.5, text=prompt.text),) if prompt else ()
    times = tuple(float(i) for i in range(clip.num_frames))
    return Dialogue(id=str(clip.seed), frame_times=times, fps=1.0, users=users, utterances=utterances, system=system)


def test_the_world_s_dialogues_come_out_to_the_letter() -> None:
    asked = cut = 0
    for seed in range(150):
        clip = eventful(seed, 16)
        prompt = draw_prompt(clip)
        if prompt is not None and prompt.cut:  # there a sentence is cut in half, whatever the rate
            prompt, cut = Prompt(prompt.frame, prompt.text), cut + 1
        asked += prompt is not None
        for system in ("", "Watch."):
            laid = lay_out(dialogue_of_clip(clip, prompt, system), count(), 10_000.0)
            assert to_messages(laid, count()) == realtime_messages(clip, prompt, system)
        assert to_sample(laid, count()).media == realtime_sample(clip, prompt).media
    assert asked > 30 and cut > 3


@given(SEEDS, st.sampled_from(RATES))
def test_tokens_give_the_text_back_and_obey_the_budget(seed: int, rate: float) -> None:
    laid = lay_out(raw_dialogue(seed), count(), rate)
    messages = to_messages(laid, count())
    for message in messages:
        assert tokenizer().decode(tokenizer().encode(message.content)) == message.content
    ids = [i for turn in encode_turns(messages, tokenizer()) for i in (*turn.source, *turn.target)]
    lengths = slot_lengths(ids, tokenizer())
    slots = slots_of(laid, count())
    assert lengths == [(count()(slot.text) if slot.text else 0) + slot.silent for slot in slots]
    assert read_stream(pieces_of_tokens(ids, tokenizer())) == []


@given(SEEDS, st.sampled_from(RATES), st.floats(0.1, 1.0))
def test_frames_that_move_by_a_token_leave_a_grammatical_stream(seed: int, rate: float, probability: float) -> None:
    messages = to_messages(lay_out(raw_dialogue(seed), count(), rate), count())
    ids = [i for turn in encode_turns(messages, tokenizer()) for i in (*turn.source, *turn.target)]
    moved, labels = list(ids), list(ids)
    swap_frames(moved, labels, tokenizer(), random.Random(seed), probability)
    assert labels == moved and sorted(moved) == sorted(ids)
    assert [i for i in moved if i != tokenizer().video_id] == [i for i in ids if i != tokenizer().video_id]
    assert read_stream(pieces_of_tokens(moved, tokenizer())) == []


def test_swapping_moves_something() -> None:
    messages = to_messages(lay_out(raw_dialogue(3), count(), 3.0), count())
    ids = [i for turn in encode_turns(messages, tokenizer()) for i in (*turn.source, *turn.target)]
    moved = list(ids)
    swap_frames(moved, list(ids), tokenizer(), random.Random(0), 1.0)
    assert moved != ids


def test_a_sample_holds_the_dialogue() -> None:
    laid = lay_out(raw_dialogue(5), count(), 4.0)
    sample = sample_from_dict(sample_to_dict(to_sample(laid, count())))
    assert dialogue_from_dict(sample.meta["dialogue"]) == laid
    assert sample.kind == "realtime" and sample.media[0].frame_times == list(laid.frame_times)


@pytest.mark.parametrize("t", [-0.5, 0.0, 2.5, 2.9, 9.0])
def test_a_user_speaks_behind_the_frames_up_to_then(t: float) -> None:
    users = (UserTurn(t=t, text="one"), UserTurn(t=t, text="two"))
    raw = Dialogue(id="d", frame_times=tuple(map(float, range(5))), fps=1.0, users=users)
    messages = to_messages(lay_out(raw, count(), 5.0), count())
    frames = min(5, int(t // 1) + 1)
    assert [m.content for m in messages if m.role == "user"] == ["", "one", "two"]
    answers = [len(re.findall(r"<\|video\|>", m.content)) for m in messages if m.role == "assistant"]
    assert answers == [frames, 0, 5 - frames]
