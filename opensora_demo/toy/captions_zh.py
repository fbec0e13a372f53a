"""The grammar of `captions` in Chinese. The tokenizer reads it by the character."""

from __future__ import annotations

import numpy as np

from opensora_demo.toy.spans import mark, read_marks
from opensora_demo.toy.worlds import Scene

SHAPES: dict[str, tuple[str, ...]] = {
    "ball": ("球", "球", "圆球", "球体"),
    "square": ("方块", "正方形", "方形"),
    "triangle": ("三角形", "三角形", "三角"),
    "star": ("星星", "五角星", "星形"),
    "heart": ("心", "爱心", "心形"),
    "ring": ("圆环", "环", "甜甜圈"),
    "diamond": ("菱形", "钻石", "宝石"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("红", "红", "鲜红"),
    "orange": ("橙", "橙", "橘"),
    "yellow": ("黄", "黄", "金"),
    "green": ("绿", "绿", "翠绿"),
    "cyan": ("青", "青", "浅蓝", "蓝绿"),
    "blue": ("蓝", "蓝", "深蓝"),
    "purple": ("紫", "紫", "紫罗兰"),
    "pink": ("粉", "粉红", "粉"),
    "white": ("白", "白", "雪白"),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("小", "小小的", "很小的"),
    "medium": ("", "", "", "中等大小的"),
    "large": ("大", "很大的", "巨大的"),
}
SPEEDS: dict[str, tuple[str, ...]] = {
    "slow": ("慢慢地", "缓缓地", "慢速"),
    "normal": ("", "", "", "平稳地"),
    "fast": ("快速地", "飞快地", "迅速地", "高速"),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "left": ("向左移动", "往左移动", "向左飞", "向左滑动", "从右往左移动", "从右到左移动"),
    "right": ("向右移动", "往右移动", "向右飞", "向右滑动", "从左往右移动", "从左到右移动"),
    "up": ("向上移动", "往上飞", "上升", "升起", "从下往上移动", "从下到上移动"),
    "down": ("向下移动", "往下飞", "下降", "落下", "从上往下移动", "从上到下移动"),
    "bounce": ("弹跳", "跳动", "上下弹跳", "蹦跳"),
    "circle": ("转圈", "绕圈", "绕圈移动", "做圆周运动"),
    "spin": ("旋转", "自转", "原地旋转", "转动"),
    "grow": ("变大", "长大", "放大", "膨胀"),
    "shrink": ("变小", "缩小", "收缩"),
    "zigzag": ("走之字形", "之字形移动", "曲折移动", "蜿蜒移动"),
    "still": ("静止不动", "停着", "不动", "保持静止"),
}
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "black": ("在黑色背景上", "在黑色背景前", "在黑暗中"),
    "white": ("在白色背景上", "在白色背景前", "在白色的房间里"),
    "sky": ("在天空中", "在蓝天上", "在云中", "在蓝天白云间", "在空中"),
    "meadow": ("在草地上", "在草原上", "在绿色的田野上", "在公园里"),
    "night": ("在夜空中", "在夜里", "在星空下", "在月光下", "在晚上"),
    "sunset": ("在日落时", "在夕阳下", "在黄昏", "在晚霞中"),
    "sea": ("在海上", "在大海上", "在海边", "在水面上"),
    "desert": ("在沙漠里", "在沙漠中", "在沙丘上", "在沙子上"),
    "checkerboard": ("在棋盘上", "在棋盘格背景上", "在格子背景前"),
}
ROOMS: dict[str, tuple[str, ...]] = {
    "left": ("左边", "左侧"),
    "right": ("右边", "右侧"),
    "top": ("上面", "上方"),
    "bottom": ("下面", "下方"),
}
_OPENINGS = (*("",) * 8, "一段视频,", "视频:", "请生成", "画面中")
COUNTERS = ("一个", "一个", "一个", "一颗", "一只", "")
TOGETHER_PHRASES = {"side": ("并排", "左右并排"), "stack": ("上下排列",)}

# Characters that mean about one English word: their embeddings start there.
# fmt: off
_CHARACTERS_OF = {
    "red": "红", "orange": "橙橘", "yellow": "黄", "golden": "金", "green": "绿", "emerald": "翠", "cyan": "青",
    "blue": "蓝", "purple": "紫", "pink": "粉", "white": "白", "black": "黑", "ball": "球", "square": "方",
    "triangle": "三角", "star": "星", "heart": "心", "ring": "环", "diamond": "菱钻", "gem": "宝", "donut": "甜",
    "small": "小", "big": "大", "slowly": "慢缓", "quickly": "快", "rapidly": "迅", "left": "左", "right": "右",
    "up": "上", "down": "下", "bounce": "弹", "jump": "跳", "circles": "圈", "spins": "旋", "turns": "转",
    "rotates": "自", "expands": "胀", "shrinks": "缩", "zigzags": "曲蜿", "zigzag": "之", "still": "静",
    "stays": "停", "sky": "天", "clouds": "云", "grass": "草", "night": "夜", "moon": "月", "sunset": "夕霞",
    "dusk": "昏", "sea": "海", "water": "水", "sand": "沙", "desert": "漠", "dunes": "丘",
    "checkerboard": "棋盘", "checkered": "格", "in": "在", "rises": "升", "falls": "落", "descends": "降",
    "park": "公", "field": "田", "one": "一两", "moves": "移动", "flies": "飞", "slides": "滑", "room": "房"
}
# fmt: on
MEANINGS = {character: word for word, characters in _CHARACTERS_OF.items() for character in characters}


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _noun(scene: Scene, rng: np.random.Generator, colour: bool) -> str:
    """Size, colour and shape without a counter: 小红球, 红色的小球, 很大的蓝色星星."""
    size, shape = _pick(rng, SIZES[scene.size]), _pick(rng, SHAPES[scene.shape])
    if not colour:
        return size + shape
    name = _pick(rng, COLOURS[scene.colour])
    if rng.random() < 0.3:
        return size + name + (shape if rng.random() < 0.5 else "色" + shape)
    return name + "色的" + size + shape if rng.random() < 0.7 else size + name + "色的" + shape


def _action(scene: Scene, rng: np.random.Generator) -> str:
    speed = "" if scene.motion == "still" else _pick(rng, SPEEDS[scene.speed])
    return speed + _pick(rng, MOTIONS[scene.motion])


def caption(scene: Scene, rng: np.random.Generator, *, omit: float = 0.0) -> str:
    """As `captions.caption`."""
    return read_marks(marked_caption(scene, rng, omit=omit))[0]


def marked_caption(scene: Scene, rng: np.random.Generator, *, omit: float = 0.0) -> str:
    """The same, with marks (`spans`) around the words about each object."""
    colour, motion, background = (bool(rng.random() >= omit) for _ in range(3))
    place = _pick(rng, BACKGROUNDS[scene.background]) if background else ""
    if scene.companion is not None:
        return _pair_caption(scene, scene.companion, rng, colour, motion, place)
    subject = _pick(rng, COUNTERS) + mark(_noun(scene, rng, colour), scene.room)
    action = mark(_action(scene, rng) if motion else "", scene.room)
    if action and rng.random() < 0.15:
        action = "正在" + action
    opening, roll = _pick(rng, _OPENINGS), rng.random()
    if place and roll < 0.3:
        return opening + place + ("," if rng.random() < 0.5 else "") + subject + action
    return opening + subject + place + action


def _pair_caption(one: Scene, other: Scene, rng: np.random.Generator, colour: bool, motion: bool, place: str) -> str:
    if rng.random() < 0.5:
        one, other = other, one
    first, second = _pick(rng, ROOMS[one.room]), _pick(rng, ROOMS[other.room])
    actions = [_action(o, rng) if motion else "" for o in (one, other)]
    plain = [_noun(o, rng, colour) for o in (one, other)]
    alike = (one.shape, one.colour, one.motion) == (other.shape, other.colour, other.motion)
    if alike and rng.random() < 0.7:
        together = _pick(rng, TOGETHER_PHRASES["side" if one.room in ("left", "right") else "stack"])
        thing, doing = (mark(phrase, one.room, both=True) for phrase in (plain[0], actions[0]))
        return place + "两个" + thing + together + doing
    acts, nouns = ([mark(p, o.room) for p, o in zip(of, (one, other), strict=True)] for of in (actions, plain))
    if rng.random() < 0.6:
        counters = [_pick(rng, ("一个", "一个", "", "有一个")) for _ in range(2)]
        return (
            (place + "," if place else "")
            + first
            + counters[0]
            + nouns[0]
            + acts[0]
            + ","
            + second
            + counters[1]
            + nouns[1]
            + acts[1]
        )
    modified = [f"{act}的{noun}" if act else noun for act, noun in zip(acts, nouns, strict=True)]
    return f"{modified[0]}在{modified[1]}的{first}" + ("," + place if place else "")


def characters() -> list[str]:
    """Every Chinese character of the grammar, and the colon, in order."""
    groups = (SHAPES, COLOURS, SIZES, SPEEDS, MOTIONS, BACKGROUNDS, ROOMS, TOGETHER_PHRASES)
    text = "".join(phrase for group in groups for options in group.values() for phrase in options)
    text += "".join(_OPENINGS) + "".join(COUNTERS) + "色的有正在两并排:的"
    return sorted({c for c in text if c not in ",."})
