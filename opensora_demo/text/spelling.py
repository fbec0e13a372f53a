"""How words of a prompt may be written: quotes and hyphens around them, possessives, traditional characters.

`normaliser` and `splitter` are written into the tokenizers of the embedded models, whose tokens tell the page which
words are not known; the grammar of prompts (`tagger`) reads the same characters and splits at the same signs.
"""

from __future__ import annotations

from typing import Any

# Traditional and Japanese forms of the characters that captions and their neighbours (`near_words`) are written with.
_FORMS = (
    "两兩 个個箇 云雲 从從 体體 侧側 兰蘭 动動 变變 只隻 园園 圆圓 圈圏 块塊 宝寶 并並併 弹彈 时時 爱愛 "
    "环環 画畫 盘盤 着著 稳穩 红紅 绕繞遶 绿綠緑 缓緩 缩縮 罗羅 胀脹 视視 请請 转轉転 边邊 运運 里裡裏 "
    "钻鑽鉆 长長 间間 阳陽 静靜 频頻 颗顆 飞飛 黄黃 蓝藍 鲜鮮 浅淺 周週 升昇 黑黒 书書 叶葉 坠墜 岛島 "
    "帐帳 开開 户戶 摆擺 摇搖 机機 树樹 气氣 滚滾 烟煙菸 猫貓 筝箏 篮籃 苹蘋 车車 轮輪 银銀 镯鐲 门門 "
    "顶頂 风風 飘飄 鱼魚 鸟鳥 鸡雞鷄 游遊 球毬 窗窻 东東 状狀 颜顏"
)
SIMPLIFIED: dict[str, str] = {form: forms[0] for forms in _FORMS.split() for form in forms[1:]}
APOSTROPHES = "\u2018\u2019\u201b\u2032\u02bc\u00b4`"
HYPHENS = "\u2010\u2011\u2012\u2212"
INVISIBLE = "\u00ad\u200b-\u200f\u2060\ufe0e\ufe0f"
COMPOUNDS = (
    "zig zag",
    "star fish",
    "checker board",
    "chess board",
    "dough nut",
    "sun set",
)  # written as one by captions


def plain_characters(text: str) -> str:
    """Lower-case text with simplified characters, one apostrophe and one hyphen; as long as before."""
    return text.translate(_PLAIN)


_PLAIN = str.maketrans(SIMPLIFIED | dict.fromkeys(APOSTROPHES, "'") | dict.fromkeys(HYPHENS, "-"))


def normaliser() -> Any:
    """For a tokenizer: what is left are words as captions write them, between spaces and punctuation."""
    from tokenizers import Regex, normalizers

    replaced = {
        f"[{APOSTROPHES}]": "'",
        f"[{HYPHENS}]": "-",
        f"[{INVISIBLE}]": "",
        "_": " ",
        **{first.replace(" ", r"[-\s]+"): first.replace(" ", "") for first in COMPOUNDS},
        r"(?<!there)'s(?!\w)": " ",  # possessive; captions write "there's"
        r"(?<!\w)'+|'+(?!\w)": " ",  # quotes
        r"(?<!five)-+|-+(?!pointed\b)": " ",  # captions write "five-pointed"
        "。": ".",
        "、": ",",
        **SIMPLIFIED,
    }
    steps = [normalizers.Replace(old if len(old) == 1 else Regex(old), new) for old, new in replaced.items()]
    accent = normalizers.Replace("\u00b4", "'")  # NFKC would make a space of it, and an accent
    return normalizers.Sequence([accent, normalizers.NFKC(), normalizers.Lowercase(), *steps])


def splitter() -> Any:
    """For a tokenizer: words, Chinese by the character, and every other sign by itself."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\w'-]"), behavior="isolated"),
            pre_tokenizers.Split(Regex("[\u3400-\u9fff]"), behavior="isolated"),
        ]
    )
