"""Captions for toy-world scenes: a grammar with many paraphrases, and the words it can say.

Every phrase below is lower case and made of plain words; the tokenizer's vocabulary is exactly these words and the
characters of `captions_zh`, which says the same in Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from opensora_demo.text.spelling import normaliser, splitter
from opensora_demo.toy import captions_zh
from opensora_demo.toy.spans import Span, mark, read_marks
from opensora_demo.toy.worlds import MOTIONS_IN_ROOM, OPPOSITE, Scene

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "ball", "sphere", "orb", "round ball", "globe", "bubble", "circle", "disc", "disk"),
    "square": ("square", "square", "box", "block", "cube", "tile", "brick"),
    "triangle": ("triangle", "triangle", "pyramid", "cone", "wedge"),
    "star": ("star", "star", "five pointed star", "starfish", "five-pointed star"),
    "heart": ("heart", "heart", "valentine", "love heart", "heart shape"),
    "ring": ("ring", "ring", "donut", "doughnut", "hoop", "torus", "bagel"),
    "diamond": ("diamond", "diamond", "gem", "rhombus", "jewel", "crystal", "kite shape", "lozenge"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "crimson", "scarlet", "ruby", "cherry red"),
    "orange": ("orange", "orange", "orange", "tangerine", "amber"),
    "yellow": ("yellow", "yellow", "yellow", "golden", "gold", "lemon"),
    "green": ("green", "green", "green", "emerald", "lime", "grass green"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua", "teal", "light blue"),
    "blue": ("blue", "blue", "blue", "navy", "royal blue", "dark blue"),
    "purple": ("purple", "purple", "violet", "lilac", "indigo", "lavender"),
    "pink": ("pink", "pink", "rose", "magenta", "hot pink"),
    "white": ("white", "white", "white", "snow white", "pale", "ivory"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny", "mini", "very small", "small sized"),
    "medium": ("", "", "", "medium", "medium sized"),
    "large": ("big", "large", "huge", "giant", "very big", "very large", "enormous", "large sized"),
}
SPEED_WORDS: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "slow", "gently", "lazily", "at a slow pace", "very slowly", "at low speed"),
    "normal": ("", "", "", "", "steadily"),
    "fast": ("quickly", "fast", "rapidly", "swiftly", "at high speed", "very fast", "very quickly"),
}
# A motion is a verb in three forms (finite, participle, and the key for the plural) with an optional tail; the speed
# goes before or after.
VERBS: dict[str, tuple[str, ...]] = {
    "move": ("moves", "moving"),
    "slide": ("slides", "sliding"),
    "drift": ("drifts", "drifting"),
    "fly": ("flies", "flying"),
    "float": ("floats", "floating"),
    "go": ("goes", "going"),
    "travel": ("travels", "travelling", "traveling"),
    "glide": ("glides", "gliding"),
    "head": ("heads", "heading"),
    "rise": ("rises", "rising"),
    "climb": ("climbs", "climbing"),
    "ascend": ("ascends", "ascending"),
    "fall": ("falls", "falling"),
    "sink": ("sinks", "sinking"),
    "drop": ("drops", "dropping"),
    "descend": ("descends", "descending"),
    "bounce": ("bounces", "bouncing"),
    "hop": ("hops", "hopping"),
    "jump": ("jumps", "jumping"),
    "circle": ("circles", "circling"),
    "orbit": ("orbits", "orbiting"),
    "spin": ("spins", "spinning"),
    "rotate": ("rotates", "rotating"),
    "turn": ("turns", "turning"),
    "twirl": ("twirls", "twirling"),
    "grow": ("grows", "growing"),
    "expand": ("expands", "expanding"),
    "swell": ("swells", "swelling"),
    "get": ("gets", "getting"),
    "become": ("becomes", "becoming"),
    "shrink": ("shrinks", "shrinking"),
    "contract": ("contracts", "contracting"),
    "zigzag": ("zigzags", "zigzagging"),
    "weave": ("weaves", "weaving"),
    "stay": ("stays", "staying"),
    "stand": ("stands", "standing"),
    "rest": ("rests", "resting"),
    "wait": ("waits", "waiting"),
    "sit": ("sits", "sitting"),
    "roll": ("rolls", "rolling"),
}
_GO = ("move", "move", "slide", "drift", "fly", "float", "go", "travel", "glide", "head")
_LEFT = ("left", "left", "to the left", "leftwards", "leftward", "towards the left", "from right to left")
_RIGHT = ("right", "right", "to the right", "rightwards", "rightward", "towards the right", "from left to right")
_UP = ("up", "up", "upwards", "upward", "towards the top", "from bottom to top")
_DOWN = ("down", "down", "downwards", "downward", "towards the bottom", "from top to bottom")
MOTION_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "left": tuple((v, t) for v in _GO for t in _LEFT),
    "right": tuple((v, t) for v in _GO for t in _RIGHT),
    "up": (
        *((v, t) for v in _GO for t in _UP),
        ("rise", ""),
        ("rise", "up"),
        ("climb", ""),
        ("climb", "up"),
        ("ascend", ""),
    ),
    "down": (
        *((v, t) for v in _GO for t in _DOWN),
        ("fall", ""),
        ("fall", "down"),
        ("sink", ""),
        ("drop", "down"),
        ("descend", ""),
    ),
    "bounce": (
        ("bounce", ""),
        ("bounce", ""),
        ("bounce", "up and down"),
        ("hop", ""),
        ("hop", "up and down"),
        ("jump", "up and down"),
        ("jump", ""),
        ("move", "up and down"),
    ),
    "circle": (
        ("move", "in a circle"),
        ("fly", "in circles"),
        ("go", "in circles"),
        ("circle", "around"),
        ("circle", ""),
        ("orbit", "the centre"),
        ("orbit", "the center"),
        ("travel", "in a loop"),
        ("go", "around and around"),
        ("move", "in circles"),
    ),
    "spin": (
        ("spin", ""),
        ("spin", ""),
        ("rotate", ""),
        ("rotate", "in place"),
        ("turn", "around"),
        ("twirl", ""),
        ("spin", "in place"),
        ("spin", "around"),
    ),
    "grow": (
        ("grow", ""),
        ("grow", ""),
        ("grow", "bigger"),
        ("expand", ""),
        ("swell", ""),
        ("get", "bigger"),
        ("become", "larger"),
        ("get", "larger"),
    ),
    "shrink": (
        ("shrink", ""),
        ("shrink", ""),
        ("get", "smaller"),
        ("become", "smaller"),
        ("contract", ""),
        ("shrink", "away"),
    ),
    "zigzag": (
        ("zigzag", ""),
        ("zigzag", ""),
        ("move", "in a zigzag"),
        ("zigzag", "along"),
        ("weave", "up and down"),
        ("fly", "in a zigzag"),
        ("travel", "in a zigzag"),
    ),
    "still": (
        ("stay", "still"),
        ("stand", "still"),
        ("stay", "in place"),
        ("rest", ""),
        ("wait", ""),
        ("sit", "still"),
        ("stay", "motionless"),
        ("sit", "motionless"),
    ),
}
BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "black": (
        "on a black background",
        "on black",
        "in front of a black background",
        "in the dark",
        "against a plain black background",
        "in darkness",
        "with a black background",
        "on a dark background",
    ),
    "white": (
        "on a white background",
        "on white",
        "in front of a white background",
        "against a plain white background",
        "in a white room",
        "with a white background",
        "on a plain white background",
    ),
    "sky": (
        "in the sky",
        "in a blue sky",
        "in a cloudy sky",
        "among the clouds",
        "in the cloudy blue sky",
        "in front of clouds",
        "high in the sky",
        "with clouds in the background",
        "in the air",
    ),
    "meadow": (
        "over a meadow",
        "on a meadow",
        "in a green meadow",
        "on the grass",
        "in a grassy field",
        "over green hills",
        "in the park",
        "in a field",
        "on green grass",
        "in the countryside",
    ),
    "night": (
        "at night",
        "in the night sky",
        "under the stars",
        "in a starry night",
        "by moonlight",
        "under the moon",
        "in front of a starry night sky",
        "in the night",
        "with a night sky in the background",
    ),
    "sunset": (
        "at sunset",
        "in the evening sun",
        "at dusk",
        "in front of a sunset",
        "before the setting sun",
        "in the evening sky",
        "with a sunset in the background",
        "in the evening",
    ),
    "sea": (
        "over the sea",
        "by the sea",
        "over the ocean",
        "on the water",
        "above the waves",
        "at the sea",
        "in front of the ocean",
        "with the sea in the background",
        "at the beach",
    ),
    "desert": (
        "in the desert",
        "over the desert",
        "over sand dunes",
        "on the sand",
        "in front of dunes",
        "in a sandy desert",
        "with sand dunes in the background",
    ),
    "checkerboard": (
        "on a checkerboard",
        "on a checkered background",
        "in front of a checkerboard",
        "over a chessboard",
        "on a chequered board",
        "against a checkerboard pattern",
        "with a checkered background",
        "on a chequered background",
    ),
}
_OPENINGS = (
    *("",) * 8,
    "a video of",
    "a clip of",
    "a short video of",
    "an animation of",
    "we see",
    "there is",
    "show me",
    "please show",
    "make a video of",
    "create a clip of",
    "i want to see",
)
FILLERS = ("bright", "shiny", "nice", "beautiful", "cute", "simple", "single")  # words that change nothing
_ADVERBS = ("slowly", "gently", "lazily", "quickly", "rapidly", "swiftly", "steadily")
# Where the first of two objects is, seen from the second; where each of them is in the frame; both together.
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right of", "on the right side of"),
    "top": ("above", "over", "on top of", "higher than"),
    "bottom": ("below", "under", "beneath", "underneath", "lower than"),
}
ROOM_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "above", "in the upper half"),
    "bottom": ("at the bottom", "below", "in the lower half"),
}
TOGETHER_PHRASES: dict[str, tuple[str, ...]] = {
    "side by side": ("side by side", "next to each other", "beside each other"),
    "one above the other": ("one above the other", "one over the other", "one below the other"),
}


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _join(*words: str) -> str:
    return re.sub(r"\s+", " ", " ".join(w for w in words if w)).strip()


def _article(phrase: str, rng: np.random.Generator) -> str:
    roll = rng.random()
    if roll < 0.08:
        return phrase
    if roll < 0.16:
        return "the " + phrase
    if roll < 0.2:
        return "one " + phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _noun(scene: Scene, rng: np.random.Generator, colour: bool) -> str:
    """Size, colour and shape in one of the usual orders."""
    size, shape = _pick(rng, SIZE_WORDS[scene.size]), _pick(rng, SHAPE_WORDS[scene.shape])
    filler = _pick(rng, FILLERS) if rng.random() < 0.04 else ""
    if not colour:
        return _join(filler, size, shape)
    name, roll = _pick(rng, COLOUR_WORDS[scene.colour]), rng.random()
    if roll < 0.03:
        return _join(filler, size, shape, "of", name, _pick(rng, ("colour", "color")))
    if roll < 0.06:
        return _join(filler, size, name, _pick(rng, ("coloured", "colored")), shape)
    if roll < 0.09:
        return _join(filler, size, shape, "that is", name)
    if roll < 0.12:
        return _join(filler, name, size, shape)
    return _join(filler, size, name, shape)


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("x", "s")) else "s")


def _action(scene: Scene, rng: np.random.Generator, form: str) -> str:
    """What an object does; `form` is "finite" (bounces), "participle" (bouncing), "is" (is bouncing) or "plural"."""
    phrases = MOTION_PHRASES[scene.motion]
    verb, tail = phrases[int(rng.integers(len(phrases)))]
    speed = "" if scene.motion == "still" else _pick(rng, SPEED_WORDS[scene.speed])
    finite, *participles = VERBS[verb]
    spoken = {"finite": finite, "plural": verb}.get(form) or _pick(rng, tuple(participles))
    auxiliary = "is" if form == "is" else ""
    if speed in _ADVERBS and rng.random() < 0.4:
        return _join(auxiliary, speed, spoken, tail)
    return _join(auxiliary, spoken, tail, speed)


def caption(scene: Scene, rng: np.random.Generator, *, omit: float = 0.0, chinese: float = 0.0) -> str:
    """One sentence for a scene; each of colour, motion and background is left out with probability `omit`.

    `chinese` is the share of captions in Chinese.
    """
    return caption_with_spans(scene, rng, omit=omit, chinese=chinese)[0]


def caption_with_spans(
    scene: Scene, rng: np.random.Generator, *, omit: float = 0.0, chinese: float = 0.0
) -> tuple[str, tuple[Span, ...]]:
    """The caption that `caption` draws, and which of its words describe which object: what it is and what it does."""
    if chinese and rng.random() < chinese:
        return read_marks(captions_zh.marked_caption(scene, rng, omit=omit))
    if scene.companion is not None:
        return read_marks(_pair_caption(scene, scene.companion, rng, omit))
    return read_marks(_lone_caption(scene, rng, omit))


def _lone_caption(scene: Scene, rng: np.random.Generator, omit: float) -> str:
    colour, motion, background = (bool(rng.random() >= omit) for _ in range(3))
    subject = mark(_article(_noun(scene, rng, colour), rng), scene.room)
    place = _pick(rng, BACKGROUND_PHRASES[scene.background]) if background else ""
    opening, action = _pick(rng, _OPENINGS), ""
    if motion:
        form = "participle" if opening or rng.random() < 0.4 else "finite"
        if not opening and form == "participle" and rng.random() < 0.4:
            form = "is"
        action = mark(_action(scene, rng, form), scene.room)
    roll = rng.random()
    if place and roll < 0.18:
        return _join(place + ",", subject, action) if not opening else _join(opening, subject, place, action)
    if place and roll < 0.26:
        return _join(opening, subject, place, action)
    return _join(opening, subject, action, place)


def usual_room(first: str, second: str | None) -> str | None:
    """Where the first of two objects is by their motions where nobody says it, as one reads: left of the second, else
    above it; None where neither room has space for what they do. Without a `second` the caption names no motions."""
    for room in ("left", "top"):
        if second is None or (first in MOTIONS_IN_ROOM[room] and second in MOTIONS_IN_ROOM[OPPOSITE[room]]):
            return room
    return None


def _pair_caption(one: Scene, other: Scene, rng: np.random.Generator, omit: float) -> str:
    """Two objects: where each is, seen from the other or in the frame, and what it does.

    A vague caption says nothing of who is where; it is only given to scenes where that goes without saying
    (`usual_room`).
    """
    moving, background = (bool(rng.random() >= omit) for _ in range(2))
    if one.room in ("right", "bottom"):
        one, other = other, one
    vague = rng.random() < 2.5 * omit and one.room == usual_room(one.motion, other.motion if moving else None)
    if not vague and rng.random() < 0.5:
        one, other = other, one
    place = _pick(rng, BACKGROUND_PHRASES[one.background]) if background else ""
    a, b = (mark(_article(_noun(o, rng, rng.random() >= omit), rng), o.room) for o in (one, other))
    alike = (one.shape, one.colour) == (other.shape, other.colour)
    arrangement = "side by side" if one.room in ("left", "right") else "one above the other"

    def act(scene: Scene, form: str, *, both: bool = False) -> str:
        return mark(_action(scene, rng, form), scene.room, both=both) if moving else ""

    roll = rng.random()
    if alike and one.motion == other.motion and roll < 0.7:
        noun = _join(_pick(rng, COLOUR_WORDS[one.colour]), plural(_pick(rng, SHAPE_WORDS[one.shape])))
        noun = mark(noun, one.room, both=True)
        together = "" if vague else _pick(rng, TOGETHER_PHRASES[arrangement])
        text = _join("two", noun, act(one, _pick(rng, ("plural", "participle")), both=True), together)
    elif vague:
        links = ("and", "while", "next to") if one.room == "left" else ("and", "while")
        both = one.motion == other.motion and rng.random() < 0.5
        text = (
            _join(a, "and", b, act(one, "plural", both=True))
            if both
            else _join(a, act(one, "finite"), _pick(rng, links), b, act(other, "finite"))
        )
    elif roll < 0.3:
        text = _join(a, act(one, "participle"), _pick(rng, RELATION_PHRASES[one.room]), b, act(other, "participle"))
    elif roll < 0.55:
        clause = _join(_pick(rng, ("that", "which")), act(other, "finite")) if moving else ""
        text = _join(a, act(one, "finite"), _pick(rng, RELATION_PHRASES[one.room]), b, clause)
    elif roll < 0.8:
        link = _pick(rng, ("and", "while", ","))
        first, second = _pick(rng, ROOM_PHRASES[one.room]), _pick(rng, ROOM_PHRASES[other.room])
        text = _join(a, first, act(one, "finite"), link, b, second, act(other, "finite"))
    else:
        link = _pick(rng, ("and", ","))
        first, second = _pick(rng, ROOM_PHRASES[one.room]), _pick(rng, ROOM_PHRASES[other.room])
        text = _join(first, a, act(one, "finite"), link, second, b, act(other, "finite"))
    text = text.replace(" ,", ",")
    if place and rng.random() < 0.15:
        return _join(place + ",", text)
    return _join(text + ("," if place and rng.random() < 0.3 else ""), place)


WORD = re.compile(r"[a-z0-9]+(?:['-][a-z]+)*|[,.]")
_EXTRA = "a an the one two 2 is are it its and with of very both while that which there's , ."


def vocabulary() -> list[str]:
    """Every word the grammar can say in English, and every character it can say in Chinese, in alphabetical order."""
    groups = (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, SPEED_WORDS, BACKGROUND_PHRASES)
    places = (RELATION_PHRASES, ROOM_PHRASES, TOGETHER_PHRASES)
    phrases: list[str] = [
        *(phrase for group in (*groups, *places) for options in group.values() for phrase in options),
        *(plural(noun) for nouns in SHAPE_WORDS.values() for noun in nouns),
        *(form for forms in VERBS.values() for form in forms),
        *VERBS,
        *(tail for options in MOTION_PHRASES.values() for _, tail in options),
        *_OPENINGS,
        *FILLERS,
        "coloured colored colour color that is next to",
        _EXTRA,
    ]
    words = {word for phrase in phrases for word in WORD.findall(phrase.lower())}
    return sorted(words) + captions_zh.characters()


def look_alikes() -> dict[str, str]:
    """Word or character -> an older word of the same meaning: embeddings of new words start from these."""
    found = {
        word: meaning
        for group in (SHAPE_WORDS, COLOUR_WORDS)
        for meaning, words in group.items()
        for word in words
        if " " not in word and word != meaning
    }
    found |= {plural(word): meaning for meaning, words in SHAPE_WORDS.items() for word in words if " " not in word}
    found |= {"leftward": "leftwards", "rightward": "rightwards", "upward": "upwards", "downward": "downwards"}
    found |= {"traveling": "travelling", "enormous": "huge", "towards": "to", "two": "one", "2": "one"}
    return found | captions_zh.MEANINGS


def build_tokenizer(file: str, extra: Iterable[str] = ()) -> None:
    """Write the tokenizer of the grammar's vocabulary: words, and Chinese by the character (tokenizers' JSON;
    <pad> 0, </s> 1, <unk> 2). `extra` words come last."""
    from tokenizers import Tokenizer, models

    words = list(dict.fromkeys(["<pad>", "</s>", "<unk>", *vocabulary(), *extra]))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(), splitter()
    tokenizer.save(file)
