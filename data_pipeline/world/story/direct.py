"""Draws a whole script: shots, objects, what they do one after another, the camera, the light and the sign."""

from __future__ import annotations

import itertools

import numpy as np

from data_pipeline.world.story.activities import DO
from data_pipeline.world.story.level import Level
from data_pipeline.world.story.script import SETTLE, Script, Shot, new_actor, new_shot
from data_pipeline.world.story.tracks import Steps
from data_pipeline.world.story.words import SIGN_WORDS

RARE = {"leave": 0.7, "move": 0.6}
"""Weights of activities that would otherwise empty or fill the story; 1 for the others."""
DIM = 0.45
"""Brightness in the dark."""


def write_script(level: Level, seed: int, duration: float) -> Script:
    """The story of a seed; frame rate and size play no part in it."""
    rng = np.random.default_rng((seed, 11))
    script = Script(level, seed, duration)
    cuts = level.cuts if duration >= 8 * (level.cuts + 1) else 0
    bounds = [0.0, *(duration * (i + 1) / (cuts + 1) + float(rng.uniform(-1, 1)) for i in range(cuts)), duration]
    for begin, end in itertools.pairwise(bounds):
        shot = new_shot(rng, level, round(begin, 2), round(end, 2))
        script.shots.append(shot)
        if begin:
            script.tell(shot.begin, shot.begin, "the scene changes", "picture", "cut", change="scene")
        _play(script, shot, rng)
    if not script.actors:
        new_actor(script, script.shots[0], rng, 0.0)
    _move_camera(script, np.random.default_rng((seed, 12)))
    _dim(script, np.random.default_rng((seed, 13)))
    _write_sign(script, np.random.default_rng((seed, 14)))
    script.happenings.sort(key=lambda h: h.begin)
    return script


def _play(script: Script, shot: Shot, rng: np.random.Generator) -> None:
    level = script.level
    there = level.idle + int(rng.integers(0 if script.level.objects < 4 else 1, 3))
    for i in range(min(there, level.objects)):
        who = new_actor(script, shot, rng, shot.begin)
        if who is not None and i < level.idle:
            script.actors[who].busy = np.inf
    t = shot.begin + 1.0 + float(rng.uniform(0.2, 1.2))
    while t < shot.end - SETTLE:
        _step(script, shot, rng, round(t, 2))
        t += max(0.4, float(rng.exponential(level.pace * 0.6)) + level.pace * 0.4)


def _step(script: Script, shot: Shot, rng: np.random.Generator, t: float) -> None:
    """Someone appears, or someone who is free does something."""
    alive = script.alive(shot, t)
    missing = script.level.objects - len(alive)
    if missing > 0 and rng.random() < 0.25 + 0.5 * missing / script.level.objects:
        who = new_actor(script, shot, rng, t)
        if who is not None:
            text = f"{script.actors[who].name(t)} appears"
            script.tell(t, t, text, "appear", "appear", who, change="appear")
            return
    free = [n for n in alive if script.actors[n].busy <= t]
    if not free:
        return
    names = list(script.level.activities)
    weight = np.array([RARE.get(name, 1.0) for name in names])
    for name in rng.choice(names, size=len(names), replace=False, p=weight / weight.sum()):
        who = free[int(rng.integers(len(free)))]
        if DO[str(name)](script, shot, rng, t, who, [n for n in free if n != who]):
            return


def _move_camera(script: Script, rng: np.random.Generator) -> None:
    if not script.level.camera:
        return
    t = float(rng.uniform(2, 5))
    while t + 4 < script.duration:
        kind = str(rng.choice(script.level.camera))
        end = t + float(rng.uniform(1.5, 3))
        if kind == "shake":
            script.shakes.append((t, end))
            _camera(script, t, end, "the camera shakes")
        elif kind == "zoom":
            near = script.zoom.values[-1] > 1.1
            script.zoom.ease(t, end, 1.0 if near else float(rng.uniform(1.25, 1.4)))
            _camera(script, t, end, f"the camera zooms {'out' if near else 'in'}")
        else:
            track, words = ((script.pan_x, ("left", "right")), (script.pan_y, ("up", "down")))[int(rng.integers(2))]
            away = track.values[-1] - 0.5
            step = float(rng.choice((-1, 1)) * rng.uniform(0.14, 0.22)) if abs(away) < 0.01 else -away
            track.ease(t, end, track.values[-1] + step)
            _camera(script, t, end, f"the camera moves {words[step > 0]}")
        t = end + float(rng.uniform(2, 6))


def _camera(script: Script, begin: float, end: float, text: str) -> None:
    script.tell(begin, end, text, "picture", "camera", change="scene", level="action", salience=0.4)


def _dim(script: Script, rng: np.random.Generator) -> None:
    if not script.level.lights or rng.random() < 0.25:
        return
    t = round(float(rng.uniform(3, max(4, script.duration * 0.6))), 2)
    back = round(t + float(rng.uniform(3, 6)), 2)
    script.light.hold(t - 0.02)
    script.light.add(t, DIM)
    script.tell(t, t, "it gets dark", "picture", "dark", change="scene", salience=0.6)
    if back + SETTLE < script.duration:
        script.light.hold(back - 0.02)
        script.light.add(back, 1.0)
        script.tell(back, back, "it gets light", "picture", "light", change="scene", salience=0.6)


def _write_sign(script: Script, rng: np.random.Generator) -> None:
    if not script.level.signs:
        return
    kind = str(rng.choice(script.level.signs))
    minute, number = int(rng.integers(1, 700)), int(rng.integers(0, 20))
    word = str(rng.choice(SIGN_WORDS))

    def text() -> str:
        return {"word": word, "counter": str(number), "clock": f"{minute // 60 + 1}:{minute % 60:02d}"}[kind]

    script.sign = Steps([0.0], [text()])
    t = float(rng.uniform(3, 7))
    while t + SETTLE < script.duration:
        minute, number = minute + int(rng.integers(1, 6)), number + 1
        word = str(rng.choice([w for w in SIGN_WORDS if w != word]))
        moment = round(t, 2)
        script.sign.add(moment, text())
        script.tell(moment, moment, f"the sign changes to {text()}", "picture", "sign", change="text", salience=0.6)
        t += float(rng.uniform(2, 4) if kind != "word" else rng.uniform(3.5, 8))
