"""Class labels in the place of text: the condition that DiT was made for (Peebles & Xie, 2023)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from opensora_demo.text.clip import PooledText
from opensora_demo.text.spelling import plain_characters

Span = tuple[int, int]  # characters [start, end)
_HAN = "\u3400-\u9fff"
_WORD = rf"[^\W_{_HAN}]+(?:['-][^\W_{_HAN}]+)*"
_MEANT = "/&%#@*\\"  # punctuation that stands for a word
_ARTICLES = frozenset(("a", "an", "the", "个", "一"))


def says_something(token: str) -> bool:
    """Whether a token is a word, a number, an emoji or another symbol, and no punctuation."""
    return any(
        category[0] in "LNS" or character in _MEANT
        for character in token
        if (category := unicodedata.category(character))
    )


class Labels:
    """`classes` gives each label and the words that stand for it, in English and Chinese, in the order of the network's
    rows. An English word is found as it is, with a possessive, as a plural or between hyphens, a Chinese one anywhere
    in a run of characters, simplified or traditional."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self.null = len(classes)
        self.index = {word.lower(): i for i, words in enumerate(classes.values()) for word in words}

    @cached_property
    def _words(self) -> re.Pattern[str]:
        chinese = sorted((word for word in self.index if re.match(f"[{_HAN}]", word)), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, chinese), f"[{_HAN}]", _WORD, r"[^\w\s]+"]))

    def of(self, word: str) -> int | None:
        """The class that a word names."""
        word = word.lower().removesuffix("'s")
        forms = (word, word.removesuffix("s"), word.removesuffix("es"))
        return next((self.index[form] for form in forms if form in self.index), None)

    def read(self, prompt: str) -> tuple[int, list[Span]]:
        """The first class that a prompt names, or the null class, which comes after all others; and where the words
        are that name none. Articles mean nothing; signs count as words, of those who draw a heart."""
        label, unknown = self.null, list[Span]()
        for word, start in self._split(plain_characters(prompt)):
            found = self.of(word)
            if found is not None:
                label = found if label == self.null else label
            elif word.lower() in _ARTICLES or not says_something(word):
                continue
            elif unknown and unknown[-1][1] == start:  # Chinese, character by character
                unknown[-1] = (unknown[-1][0], start + len(word))
            else:
                unknown.append((start, start + len(word)))
        return label, unknown

    def _split(self, text: str) -> list[tuple[str, int]]:
        """Words and where they begin; at hyphens only where the whole names no class."""
        words: list[tuple[str, int]] = []
        for match in self._words.finditer(text):
            word, start = match[0], match.start()
            for part in [word] if self.of(word) is not None else word.split("-"):
                words += [(part, start)] if part else []
                start += len(part) + 1
        return words


class LabelEncoder:
    """Prompts -> the index (b) of the class that each names first, by `Labels`. Every word that names none is answered
    as unknown: the network never learns of it."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self.labels = Labels(classes)

    def __call__(self, prompts: list[str]) -> PooledText:
        read = [self.labels.read(prompt) for prompt in prompts]
        unknown = tuple(
            tuple(dict.fromkeys(prompt[start:end] for start, end in spans))
            for prompt, (_, spans) in zip(prompts, read, strict=True)
        )
        return PooledText(torch.tensor([label for label, _ in read]), unknown, (0,) * len(prompts))
