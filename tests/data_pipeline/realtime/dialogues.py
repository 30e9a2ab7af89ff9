"""Sound dialogues of many shapes for tests, made from a seed."""

from __future__ import annotations

import dataclasses
import random
from functools import cache

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.words import CountCache
from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import Tokenizer

SENTENCES = {
    "en": [
        f"{thing} {happens}"
        for thing in ("red ball", "blue flag", "the green fence", "an incomprehensibly large board")
        for happens in ("appears.", "leaves, and nothing else moves.", "turns yellow?", "hits the wall on the left side of it!")
    ],
    "zh": [
        f"{thing}{happens}"
        for thing in ("红球", "蓝旗", "绿色的栅栏", "一块很大的棋盘")
        for happens in ("出现了。", "离开了，别的没有变化。", "变成黄色。", "碰到了左边的墙！")
    ],
}
QUESTIONS = {"en": ["What do you see?", "How many are there?", "Be quiet."], "zh": ["你看到了什么？", "有多少个？", "请安静。"]}
RATES = (0.7, 2.0, 5.0, 9.5, 30.0, 1000.0)


@cache
def tokenizer() -> Tokenizer:
    return train_demo_tokenizer([*SENTENCES["en"], *SENTENCES["zh"], *QUESTIONS["en"], "user assistant system\n\n"] * 3, 600)


@cache
def count() -> CountCache:
    """Tokens of a text, as every test counts them."""
    return CountCache(lambda text: len(tokenizer().encode(text)))


def raw_dialogue(seed: int) -> Dialogue:
    """A dialogue before its layout: 1 to 8 frames a second, up to three turns of the user, up to six utterances."""
    rng = random.Random(seed)
    fps = rng.choice((1.0, 1.0, 2.0, 4.0, 8.0))
    times = tuple(index / fps for index in range(rng.randint(8, 40)))
    language = rng.choice(("en", "en", "zh"))
    asked_at = sorted(rng.sample(range(1, len(times)), rng.choice((0, 1, 1, 2, 3))))
    texts = iter(rng.sample(SENTENCES[language], 16))
    users, utterances = [], []
    for index, frame in enumerate(asked_at):
        behaviour = rng.choice(("direct", "direct", "several_turns", "interruption"))
        users.append(UserTurn(t=times[frame] - 0.5 / fps, text=QUESTIONS[language][index], behaviour=behaviour))
        if behaviour == "direct":
            shown = times[rng.randint(0, frame)]
            utterances.append(
                Utterance(
                    t=times[frame], text=next(texts), evidence=(shown, times[frame]), answers=index, tolerance=60.0, kind="answer"
                )
            )
    for frame in sorted(rng.sample(range(len(times)), rng.randint(2, 6))):
        begin = max(0.0, times[frame] - rng.choice((0.0, 0.4)))
        cuts = rng.random() < 0.2
        utterances.append(
            Utterance(
                t=times[frame],
                text=next(texts),
                evidence=(begin, times[frame]),
                tolerance=60.0,
                replaces_running=cuts and not users,
            )
        )
    utterances.sort(key=lambda one: (one.t, one.answers is None))
    return Dialogue(
        id=f"d{seed}",
        frame_times=times,
        fps=fps,
        users=tuple(users),
        utterances=tuple(utterances),
        language=language,
        behaviours=("narrate",),
        system=rng.choice(("", "You watch a video.")),
    )


def sound_dialogue(seed: int, rate: float | None = None) -> Dialogue:
    """Laid out; a correction of what was said before stands in some."""
    rng = random.Random(seed + 1_000_003)
    laid = lay_out(raw_dialogue(seed), count(), rate if rate is not None else rng.choice(RATES))
    said = [index for index, one in enumerate(laid.utterances) if one.said]
    if len(said) > 1:
        first, second = said[0], said[-1]
        utterances = list(laid.utterances)
        utterances[second] = dataclasses.replace(utterances[second], corrects=first, kind="correction")
        laid = dataclasses.replace(laid, utterances=tuple(utterances))
    return laid
