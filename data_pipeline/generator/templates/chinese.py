"""Chinese phrases, and the words of the world in Chinese. The keys are those of `english`."""

from __future__ import annotations

REQUESTS: dict[str, dict[str, tuple[str, ...]]] = {
    "narrate": {"*": ("告诉我发生了什么。", "请描述发生的事情。", "看到什么就说什么。")},
    "ask": {
        "visible": ("你看到了什么？", "那里有什么？"),
        "count": ("有几个物体？", "你看到几个物体？"),
        "colour": ("{name}是什么颜色？", "{name}的颜色是什么？"),
        "place": ("{name}在哪里？", "{name}在什么位置？"),
        "action": ("{name}在做什么？", "{name}在干什么？"),
        "sign": ("牌子上写着什么？", "上面写的是什么？"),
        "entered": ("有几个物体进了盒子？",),
        "*": ("{name}的{prefix}是什么？", "{name}现在的{prefix}是什么？"),
        "*bare": ("{prefix}是什么？", "现在的{prefix}是什么？"),
    },
    "keep": {"*": ("{ask}变了就告诉我。",)},
    "count": {"*": ("数一数物体。", "请一直数着物体。")},
    "count_events": {
        "*": ("数一数这件事发生了几次：{text}。", "请给这件事计数：{text}。"),
        "scene": ("数一数{clause}几次。",),
    },
    "alert": {
        "*": ("这件事发生时告诉我：{text}。", "这件事发生时请提醒我：{text}。"),
        "scene": ("{clause}时告诉我。", "{clause}时请提醒我。"),
    },
    "next": {"*": ("接下来会发生什么？", "然后会怎么样？")},
    "yet": {"*": ("这件事发生了吗：{text}？", "这件事是不是已经发生：{text}？"), "scene": ("{clause}了吗？",)},
    "last": {"*": ("刚才最后发生了什么？", "最近发生的是什么？")},
    "before": {
        "visible": ("之前这里有什么？", "之前你看到了什么？"),
        "count": ("之前有几个物体？",),
        "colour": ("{name}之前是什么颜色？",),
        "place": ("{name}之前在哪里？",),
        "action": ("{name}之前在做什么？",),
        "sign": ("之前牌子上写着什么？",),
        "entered": ("之前有几个物体进了盒子？",),
        "*": ("{name}之前的{prefix}是什么？",),
        "*bare": ("之前的{prefix}是什么？",),
    },
    "current": {"*": ("现在在发生什么？", "正在进行什么？")},
    "quiet": {"*": ("请安静。", "不要说话。", "请保持沉默。")},
    "retract": {"*": ("算了。", "不用了。", "不必告诉我了。")},
}
NUMBERS = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十")
STOP = "。"
AND = "，"
NOW = "现在{value}"
YES = "是的，{text}"
NOT_YET = "还没有"
NOTHING = "什么都没有"
WRITTEN = "写着"

PLAIN: dict[str, tuple[str, ...]] = {
    "ask:visible": ("我看到{x}。", "有{x}。"),
    "ask:count": ("有{x}。", "我数到{x}。"),
    "ask:colour": ("是{x}。", "{name}是{x}。"),
    "ask:place": ("在{x}。", "{name}在{x}。"),
    "ask:action": ("它在{x}。", "{name}在{x}。"),
    "ask:sign": ("写着{x}。", "牌子上写着{x}。"),
    "ask:entered": ("有{x}。", "进了{x}。"),
    "before:visible": ("之前有{x}。", "之前我看到{x}。"),
    "before:count": ("之前有{x}。",),
    "before:colour": ("之前是{x}。", "{name}之前是{x}。"),
    "before:place": ("之前在{x}。",),
    "before:sign": ("之前写着{x}。",),
    "correction:visible": ("现在我看到{x}。", "现在有{x}。"),
    "correction:count": ("现在有{x}。",),
    "correction:colour": ("现在是{x}。", "{name}现在是{x}。"),
    "correction:place": ("现在在{x}。", "{name}现在在{x}。"),
    "correction:action": ("现在它在{x}。",),
    "correction:sign": ("现在写着{x}。",),
    "correction": ("变了：{x}。", "现在：{x}。"),
    "count": ("{x}。", "现在有{x}。"),
    "count_events": ("一共{x}次。", "到现在{x}次。"),
    "alert": ("{x}。", "注意，{x}。", "看，{x}。"),
    "narration": ("{x}。",),
    "next": ("{x}。", "接着，{x}。"),
    "last": ("{x}。", "刚才{x}。"),
    "not_yet": ("还没有。", "没有，还没有。"),
    "yet": ("是的，{x}。", "对，{x}。"),
    "*": ("{x}。",),
}

COLOURS = {"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄", "purple": "紫", "white": "白"}
KINDS = {"ball": "球", "flag": "旗", "board": "板", "fence": "栅栏", "object": "物体"}
CELLS = {
    "top left": "左上",
    "top center": "上方",
    "top right": "右上",
    "middle left": "左边",
    "middle center": "中间",
    "middle right": "右边",
    "bottom left": "左下",
    "bottom center": "下方",
    "bottom right": "右下",
}
VERBS = {"appears": "出现", "leaves": "离开", "turns": "变成"}
COUNTS = dict(
    zip(
        ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        ("没有", "一个", "两个", "三个", "四个", "五个", "六个", "七个", "八个", "九个", "十个", "十一个", "十二个"),
        strict=True,
    )
)
PREFIXES = {
    "colour": "颜色",
    "place": "位置",
    "action": "动作",
    "sign": "文字",
    "count": "数量",
    "visible": "画面",
    "entered": "数量",
}
