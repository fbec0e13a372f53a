"""What comes nearest in the toy worlds to words that they do not have: somebody asks for the sun, and a ball is round.

By meaning, and only where no table of the captions has the word; what is merely misspelt is found by its letters.
"""

from __future__ import annotations

from opensora_demo.toy.chips import Kind

_BY_VALUE: dict[Kind, dict[str, str]] = {
    "shape": {
        "ball": "apple balloon planet earth egg marble pearl tomato face football basketball pea melon "
        "cat dog bird fish elephant mouse rabbit bear person man woman child boy girl animal robot "
        "太阳 苹果 气球 鸡蛋 篮球 足球 猫 狗 鸟 鱼 大象 象 老鼠 兔 熊 人 男孩 女孩 机器人",
        "square": "cushion pillow book window door screen car bus truck house building rectangle dice gift present "
        "书 窗户 门 汽车 车 盒子 箱子",
        "triangle": "mountain tent roof tree arrow pizza carrot rocket boat ship 山 帐篷 屋顶 树 火箭 船",
        "star": "flower snowflake spark firework comet 花 雪花 火花 烟花",
        "heart": "lips kiss butterfly leaf 蝴蝶 叶",
        "ring": "wheel tire tyre bracelet hole halo band 轮 手镯 洞",
        "diamond": "stone shield 风筝 水晶 盾",
    },
    "colour": {
        "red": "blood maroon vermilion burgundy 赤 朱",
        "orange": "brown copper bronze rust peach apricot 棕 褐 咖啡",
        "yellow": "blond mustard cream beige 米黄",
        "green": "olive mint jade khaki 碧",
        "cyan": "aquamarine azure",
        "blue": "sapphire cobalt ultramarine 靛",
        "purple": "mauve plum",
        "pink": "salmon coral fuchsia 桃",
        "white": "grey gray silver transparent 灰 银",
    },
    "motion": {
        "right": "run runs running walk walks walking drive drives driving swim swims swimming race races racing crawl "
        "crawls crawling 跑 走路 开车 游泳",
        "up": "lift lifts lifting launch launches launching soar soars soaring takeoff 飘",
        "down": "rain rains raining plunge plunges plunging crash crashes crashing 掉 坠",
        "bounce": "dance dances dancing leap leaps leaping skip skips skipping play plays playing shake shakes shaking "
        "跳舞 舞 摇",
        "circle": "whirl whirls whirling revolve revolves revolving",
        "spin": "pirouette swirl swirls swirling tumble tumbles tumbling 翻滚 打转",
        "grow": "inflate inflates inflating explode explodes exploding bloom blooms blooming 爆炸 开花",
        "shrink": "melt melts melting vanish vanishes vanishing disappear disappears disappearing 融化 消失",
        "zigzag": "wander wanders wandering swerve swerves swerving wave waving 徘徊 摆",
        "still": "sleep sleeps sleeping freeze freezes freezing hover hovers hovering 睡",
    },
    "place": {
        "black": "cave void shadow 洞穴",
        "white": "ice studio paper 冰",
        "sky": "heaven heavens cloud",
        "meadow": "forest garden jungle lawn farm wood woods valley 森林 花园 树林",
        "night": "space universe galaxy cosmos midnight 太空 宇宙 银河",
        "sunset": "dawn sunrise twilight morning 黎明 日出 早晨",
        "sea": "lake river pool coast shore island 湖 河 池 岛",
        "desert": "sahara dust",
        "checkerboard": "chess grid floor tablecloth 地板",
    },
}
NEAR: dict[str, tuple[Kind, str]] = {
    name: (kind, value)
    for kind, values in _BY_VALUE.items()
    for value, names in values.items()
    for name in names.split()
}
"""A word, in lower case -> the kind and value of the toy worlds that is nearest."""
