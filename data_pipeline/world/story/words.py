"""Words of the stories: numbers, lists, and every kind, action, verb and sign in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count_words(number: int, noun: str = "object") -> str:
    """`no object`, `one object`, `two objects`."""
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {noun}{'s' if number > 1 else ''}"


def times_words(number: int) -> str:
    """`never`, `once`, `twice`, `three times`."""
    if number < 3:
        return ("never", "once", "twice")[number]
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} times"


def listed(parts: Sequence[str]) -> str:
    """`red ball`, `red ball and blue flag`, `red ball, blue flag and white star`; empty for nothing."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


FIGURES = ("star", "heart", "house", "tree", "fish", "moon", "ring", "cross", "arrow", "face", "drop")
"""Figures that are drawn."""
PHOTOS = ("cat", "cup", "rocket", "horse", "astronaut", "photographer")
"""Photographs, cut out of the bundled stills."""
SIGN_WORDS = ("OPEN", "SHUT", "STOP", "GO", "WAIT", "EXIT", "SALE", "TAXI")

CHINESE = {
    "star": "星星",
    "heart": "心",
    "house": "房子",
    "tree": "树",
    "fish": "鱼",
    "moon": "月亮",
    "ring": "圆环",
    "cross": "十字",
    "arrow": "箭头",
    "face": "脸",
    "drop": "水滴",
    "cat": "猫",
    "cup": "杯子",
    "rocket": "火箭",
    "horse": "马",
    "astronaut": "宇航员",
    "photographer": "摄影师",
    "spins": "旋转",
    "blinks": "闪烁",
    "grows": "变大",
    "shrinks": "变小",
    "circles": "绕着转",
    "carries": "搬运",
    "bounces": "弹跳",
    "hits": "碰到",
    "goes behind the wall": "走到墙后面",
    "comes out": "出来了",
    "enters the box": "进入盒子",
    "the scene changes": "场景变了",
    "it gets dark": "变暗了",
    "it gets light": "变亮了",
    "the camera shakes": "镜头晃动",
    "the camera zooms in": "镜头拉近",
    "the camera zooms out": "镜头拉远",
    "the camera moves left": "镜头向左移",
    "the camera moves right": "镜头向右移",
    "the camera moves up": "镜头向上移",
    "the camera moves down": "镜头向下移",
    "the sign changes to": "牌子变成",
    "behind the wall": "在墙后面",
}
"""Every word of levels 2 to 5 that level 1 does not have; texts of signs stay as they are."""
