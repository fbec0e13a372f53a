"""CLIP as text encoder (transformers' CLIPTextModel): prompts -> one pooled vector each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_demo.late import LATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Numbers of the text tower; the defaults are ViT-L/14, which 2.0 uses (1.0's DiT has ViT-B/32).

    `bos`, `eos` and `pad` are tokens of the tokenizer. The vector pooled is the one at the first `eos`, so a prompt
    always ends with one; what stands behind it counts for nothing, since attention looks back only.
    """

    vocabulary: int = 49408
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    max_tokens: int = 77
    bos: str | None = "<|startoftext|>"
    eos: str = "<|endoftext|>"
    pad: str = "<|endoftext|>"
    unknown: str = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class PooledText:
    """pooled (b, width); per prompt the words that are not in the vocabulary and the tokens that were cut off."""

    pooled: Tensor
    unknown: tuple[tuple[str, ...], ...]
    cut_tokens: tuple[int, ...]


def published_name(name: str) -> str | None:
    """A name in published files of CLIP -> ours; None for the other tower's and for what is computed anew."""
    text = name.removeprefix("text_model.")
    return None if text == name or text.endswith("position_ids") else f"model.{text}"


class ClipTextEncoder(nn.Module):
    """Tokenizer and encoder. Prompts are cut at `max_tokens` and padded to it."""

    def __init__(self, cfg: ClipConfig, tokenizer_file: Path) -> None:
        super().__init__()
        with LATE:
            from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

        self.cfg = cfg
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer_file), pad_token=cfg.pad, eos_token=cfg.eos, unk_token=cfg.unknown
        )
        ids = {name: self.tokenizer.convert_tokens_to_ids(name) for name in (cfg.bos or cfg.pad, cfg.eos, cfg.pad)}
        self.model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=cfg.vocabulary,
                hidden_size=cfg.width,
                intermediate_size=cfg.hidden,
                projection_dim=cfg.width,
                num_hidden_layers=cfg.layers,
                num_attention_heads=cfg.heads,
                max_position_embeddings=cfg.max_tokens,
                hidden_act="quick_gelu",
                bos_token_id=ids[cfg.bos or cfg.pad],
                eos_token_id=ids[cfg.eos],
                pad_token_id=ids[cfg.pad],
            )
        )
        del self.model.embeddings.position_ids  # a buffer that is in no file: it would stay where it was made

    def forward(self, prompts: list[str]) -> PooledText:
        token = self.tokenizer.convert_tokens_to_ids
        front = [] if self.cfg.bos is None else [token(self.cfg.bos)]
        unknown, cut, rows = [], [], []
        for prompt in prompts:
            encoding = self.tokenizer(prompt.lower(), add_special_tokens=False, return_offsets_mapping=True)
            ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
            strange = token(self.cfg.unknown)
            unknown.append(
                tuple(dict.fromkeys(prompt[a:b] for i, (a, b) in zip(ids, offsets, strict=True) if i == strange))
            )
            room = self.cfg.max_tokens - 1 - len(front)
            cut.append(max(len(ids) - room, 0))
            rows.append([*front, *ids[:room], token(self.cfg.eos)])
        table = torch.full((len(rows), self.cfg.max_tokens), int(token(self.cfg.pad)))
        for i, row in enumerate(rows):
            table[i, : len(row)] = torch.tensor(row)
        hidden = self.encode_ids(table.to(next(self.model.parameters()).device))
        ends = torch.tensor([len(row) - 1 for row in rows], device=hidden.device)
        return PooledText(hidden[torch.arange(len(rows), device=hidden.device), ends], tuple(unknown), tuple(cut))

    def encode_ids(self, ids: Tensor) -> Tensor:
        """ids (b, n) -> (b, n, width)"""
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        return self.model(input_ids=ids, position_ids=positions).last_hidden_state
