"""CLIP as text encoder (transformers' CLIPTextModel): prompts -> one pooled vector each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.text.tokens import reading_tokenizer, tokenize


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


class ClipTextEncoder(nn.Module):
    """Tokenizer and encoder. Prompts are cut at `max_tokens` and padded to it."""

    def __init__(self, cfg: ClipConfig, tokenizer_file: Path) -> None:
        super().__init__()
        with IMPORT_LOCK:
            from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

        self.cfg = cfg
        with reading_tokenizer(tokenizer_file):
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
        tokens = tokenize(
            self.tokenizer,
            prompts,
            max_tokens=self.cfg.max_tokens,
            begin=() if self.cfg.bos is None else (token(self.cfg.bos),),
            end=token(self.cfg.eos),
            unknown=token(self.cfg.unknown),
            lower=True,
        )
        table = tokens.table(int(token(self.cfg.pad)), self.cfg.max_tokens)
        hidden = self.encode_ids(table.to(next(self.model.parameters()).device))
        ends = torch.tensor([len(row) - 1 for row in tokens.rows], device=hidden.device)
        return PooledText(hidden[torch.arange(len(prompts), device=hidden.device), ends], tokens.unknown, tokens.cut)

    @staticmethod
    def published_name(name: str) -> str | None:
        """A name in published files of CLIP -> ours; None for the other tower's and for what is computed anew."""
        text = name.removeprefix("text_model.")
        return None if text == name or text.endswith("position_ids") else f"model.{text}"

    def encode_ids(self, ids: Tensor) -> Tensor:
        """ids (b, n) -> (b, n, width)"""
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        return self.model(input_ids=ids, position_ids=positions).last_hidden_state
