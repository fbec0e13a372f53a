"""Prompts as rows of token ids, the same way for every encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opensora_demo.errors import WeightsError
from opensora_demo.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@contextmanager
def reading_tokenizer(file: Path) -> Iterator[None]:
    """Raises WeightsError naming the file from which no tokenizer can be read."""
    try:
        if not file.stat().st_size:
            raise EOFError(file.name)  # transformers reads a tokenizer without words from it
        yield
    except MemoryError:
        raise
    except Exception as error:  # the library raises plain ones, some of which name folders
        reason = message("weights.no_tokenizer")
        raise WeightsError(message("weights.damaged", file=file.name, reason=reason)) from error


@dataclass(frozen=True, slots=True)
class Tokens:
    """Per prompt: its ids between the marks of begin and end, the words that have no token, and how many tokens were
    cut off."""

    rows: tuple[tuple[int, ...], ...]
    unknown: tuple[tuple[str, ...], ...]
    cut: tuple[int, ...]

    def table(self, pad: int, width: int) -> Tensor:
        """ids (prompts, width), filled up with `pad`."""
        table = torch.full((len(self.rows), width), pad)
        for i, row in enumerate(self.rows):
            table[i, : len(row)] = torch.tensor(row)
        return table


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    begin: tuple[int, ...],
    end: int,
    unknown: int,
    lower: bool = False,
) -> Tokens:
    """At most `max_tokens` ids a prompt, marks included; `unknown` is the token of words that have none.

    `lower` ignores capitals; unknown words are said as they were typed all the same."""
    rows, words, cut = [], [], []
    room = max_tokens - 1 - len(begin)
    for prompt in prompts:
        encoding = tokenizer(prompt.lower() if lower else prompt, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        strange = [prompt[a:b] for i, (a, b) in zip(ids, offsets, strict=True) if i == unknown]
        words.append(tuple(dict.fromkeys(strange)))
        cut.append(max(len(ids) - room, 0))
        rows.append((*begin, *ids[:room], end))
    return Tokens(tuple(rows), tuple(words), tuple(cut))
