"""Captions for toy-world scenes: a grammar with many paraphrases, and the words it can say.

Every phrase below is lower case and made of plain words; the tokenizer's vocabulary is exactly these words.
"""

from __future__ import annotations

import re

import numpy as np

from opensora_demo.training.worlds import Scene

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "sphere", "orb", "round ball", "globe", "bubble"),
    "square": ("square", "square", "box", "block", "cube", "tile"),
    "triangle": ("triangle", "triangle", "pyramid", "cone", "wedge"),
    "star": ("star", "star", "five pointed star", "starfish", "five-pointed star"),
    "heart": ("heart", "heart", "valentine", "love heart", "heart shape"),
    "ring": ("ring", "ring", "donut", "doughnut", "hoop", "torus"),
    "diamond": ("diamond", "diamond", "gem", "rhombus", "jewel", "crystal", "kite shape"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "crimson", "scarlet", "ruby"),
    "orange": ("orange", "orange", "orange", "tangerine", "amber"),
    "yellow": ("yellow", "yellow", "yellow", "golden", "gold", "lemon"),
    "green": ("green", "green", "green", "emerald", "lime", "grass green"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua", "teal", "light blue"),
    "blue": ("blue", "blue", "blue", "navy", "royal blue", "dark blue"),
    "purple": ("purple", "purple", "violet", "lilac", "indigo"),
    "pink": ("pink", "pink", "rose", "magenta", "hot pink"),
    "white": ("white", "white", "white", "snow white", "pale", "ivory"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny", "mini"),
    "medium": ("", "", "", "medium", "medium sized"),
    "large": ("big", "large", "huge", "giant"),
}
SPEED_WORDS: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "slow", "gently", "lazily", "at a slow pace"),
    "normal": ("", "", "", "", "steadily"),
    "fast": ("quickly", "fast", "rapidly", "swiftly", "at high speed"),
}
# A motion is a verb in three forms (base s / ing / plain) with an optional tail; the speed goes before or after.
_VERBS = {
    "move": ("moves", "moving"),
    "slide": ("slides", "sliding"),
    "drift": ("drifts", "drifting"),
    "fly": ("flies", "flying"),
    "float": ("floats", "floating"),
    "go": ("goes", "going"),
    "travel": ("travels", "travelling"),
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
MOTION_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "left": tuple((v, t) for v in _GO for t in ("left", "to the left", "leftwards", "from right to left")),
    "right": tuple((v, t) for v in _GO for t in ("right", "to the right", "rightwards", "from left to right")),
    "up": (
        *((v, t) for v in _GO for t in ("up", "upwards", "from bottom to top")),
        ("rise", ""),
        ("rise", "up"),
        ("climb", ""),
        ("climb", "up"),
        ("ascend", ""),
    ),
    "down": (
        *((v, t) for v in _GO for t in ("down", "downwards", "from top to bottom")),
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
    ),
    "white": (
        "on a white background",
        "on white",
        "in front of a white background",
        "against a plain white background",
        "in a white room",
    ),
    "sky": (
        "in the sky",
        "in a blue sky",
        "in a cloudy sky",
        "among the clouds",
        "in the cloudy blue sky",
        "in front of clouds",
        "high in the sky",
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
    ),
    "night": (
        "at night",
        "in the night sky",
        "under the stars",
        "in a starry night",
        "by moonlight",
        "under the moon",
        "in front of a starry night sky",
    ),
    "sunset": (
        "at sunset",
        "in the evening sun",
        "at dusk",
        "in front of a sunset",
        "before the setting sun",
        "in the evening sky",
    ),
    "sea": (
        "over the sea",
        "by the sea",
        "over the ocean",
        "on the water",
        "above the waves",
        "at the sea",
        "in front of the ocean",
    ),
    "desert": (
        "in the desert",
        "over the desert",
        "over sand dunes",
        "on the sand",
        "in front of dunes",
        "in a sandy desert",
    ),
    "checkerboard": (
        "on a checkerboard",
        "on a checkered background",
        "in front of a checkerboard",
        "over a chessboard",
        "on a chequered board",
        "against a checkerboard pattern",
    ),
}
_OPENINGS = ("", "", "", "", "", "a video of", "a clip of", "a short video of", "an animation of", "we see", "there is")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(phrase: str, rng: np.random.Generator) -> str:
    roll = rng.random()
    if roll < 0.08:
        return phrase
    if roll < 0.16:
        return "the " + phrase
    if roll < 0.2:
        return "one " + phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def caption(scene: Scene, rng: np.random.Generator, *, omit: float = 0.0) -> str:
    """One sentence for a scene; each of colour, motion and background is left out with probability `omit`."""
    colour, motion, background = (bool(rng.random() >= omit) for _ in range(3))
    noun = " ".join(
        filter(
            None,
            (
                _pick(rng, SIZE_WORDS[scene.size]),
                _pick(rng, COLOUR_WORDS[scene.colour]) if colour else "",
                _pick(rng, SHAPE_WORDS[scene.shape]),
            ),
        )
    )
    subject = _article(noun, rng)
    place = _pick(rng, BACKGROUND_PHRASES[scene.background]) if background else ""
    action = ""
    if motion:
        phrases = MOTION_PHRASES[scene.motion]
        verb, tail = phrases[int(rng.integers(len(phrases)))]
        speed = "" if scene.motion == "still" else _pick(rng, SPEED_WORDS[scene.speed])
        finite, participle = _VERBS[verb]
        opening = _pick(rng, _OPENINGS)
        form = participle if opening or rng.random() < 0.4 else finite
        if not opening and form == participle and rng.random() < 0.4:
            form = "is " + form
        if speed in ("slowly", "gently", "lazily", "quickly", "rapidly", "swiftly", "steadily") and rng.random() < 0.4:
            action = f"{speed} {form} {tail}" if not form.startswith("is ") else f"is {speed} {form[3:]} {tail}"
        else:
            action = f"{form} {tail} {speed}"
    else:
        opening = _pick(rng, _OPENINGS)
    roll = rng.random()
    if place and roll < 0.18:
        words = [place + ",", opening, subject, action] if not opening else [opening, subject, place, action]
    elif place and roll < 0.26:
        words = [opening, subject, place, action]
    else:
        words = [opening, subject, action, place]
    return re.sub(r"\s+", " ", " ".join(w for w in words if w)).strip()


WORD = re.compile(r"[a-z]+(?:-[a-z]+)*|[,.]")


def vocabulary() -> list[str]:
    """Every word the grammar can say, in alphabetical order."""
    phrases: list[str] = [
        *(
            w
            for group in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, SPEED_WORDS, BACKGROUND_PHRASES)
            for ws in group.values()
            for w in ws
        ),
        *(form for forms in _VERBS.values() for form in forms),
        *_VERBS,
        *(tail for options in MOTION_PHRASES.values() for _, tail in options),
        *_OPENINGS,
        "a an the one is and , .",
    ]
    return sorted({word for phrase in phrases for word in WORD.findall(phrase.lower())})


def build_tokenizer(file: str) -> None:
    """Write the word-level tokenizer of the grammar's vocabulary (tokenizers' JSON; <pad> 0, </s> 1, <unk> 2)."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    words = ["<pad>", "</s>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\w'-]"), behavior="isolated"),
        ]
    )
    tokenizer.save(file)
