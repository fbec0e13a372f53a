"""T5 as text encoder (transformers' T5EncoderModel): prompts -> features for cross-attention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.text.prompts import clean_caption
from opensora_demo.text.tokens import reading_tokenizer, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


_TAKEN_OUT = re.compile("[\u31c0-\u9fff]+")  # by `clean_caption`: Chinese and Japanese characters


@dataclass(frozen=True, slots=True, kw_only=True)
class T5Config:
    """Numbers of the encoder; the defaults are T5 v1.1 XXL, which every published Open-Sora uses.

    `clean` tidies captions first, as 1.x was trained. `attend_padding` fills every prompt to `max_tokens` and masks
    nothing, as 2.0 was trained; otherwise padding is masked and only a prompt's own tokens count.
    """

    vocabulary: int = 32128
    width: int = 4096
    layers: int = 24
    heads: int = 64
    head_width: int = 64
    hidden: int = 10240
    max_tokens: int = 300
    dropout: float = 0.1
    clean: bool = False
    attend_padding: bool = False


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """y (b, n, c) features; lengths (b) tokens that count, from the first; per prompt the words it does not know
    and the tokens that were cut off."""

    y: Tensor
    lengths: Tensor
    unknown: tuple[tuple[str, ...], ...]
    cut_tokens: tuple[int, ...]


def read_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """From tokenizers' JSON, or from the SentencePiece model that T5 is published with. Raises WeightsError."""
    with IMPORT_LOCK:  # 3 x the import time of torch
        from transformers import PreTrainedTokenizerFast, T5Tokenizer

    with reading_tokenizer(file):
        if file.name == "spiece.model":  # the name under which transformers looks for it in a folder
            return T5Tokenizer.from_pretrained(str(file.parent), local_files_only=True)
        return PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


class T5TextEncoder(nn.Module):
    """Tokenizer and encoder. Prompts are cut at `max_tokens` and end with </s>."""

    aliases: ClassVar[Mapping[str, str]] = {"model.encoder.embed_tokens.weight": "model.shared.weight"}
    """Two names of one tensor; files have one of them, or both."""

    def __init__(self, cfg: T5Config, tokenizer_file: Path) -> None:
        super().__init__()
        with IMPORT_LOCK:
            from transformers import T5Config as HubT5Config
            from transformers import T5EncoderModel

        self.cfg = cfg
        self.tokenizer = read_tokenizer(tokenizer_file)
        self.model = T5EncoderModel(
            HubT5Config(
                vocab_size=cfg.vocabulary,
                d_model=cfg.width,
                d_kv=cfg.head_width,
                d_ff=cfg.hidden,
                num_layers=cfg.layers,
                num_heads=cfg.heads,
                dropout_rate=cfg.dropout,
                feed_forward_proj="gated-gelu",
                is_encoder_decoder=False,
                use_cache=False,
                tie_word_embeddings=False,
            )
        )

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor, tuple[tuple[str, ...], ...], tuple[int, ...]]:
        """ids (b, n), lengths (b), unknown words and tokens cut off, for each prompt."""
        tokens = tokenize(
            self.tokenizer,
            [clean_caption(prompt) for prompt in prompts] if self.cfg.clean else prompts,
            max_tokens=self.cfg.max_tokens,
            begin=(),
            end=self.tokenizer.eos_token_id,
            unknown=self.tokenizer.unk_token_id,
        )
        unknown = tokens.unknown
        if self.cfg.clean:  # which takes these out without a word
            unknown = tuple((*words, *_TAKEN_OUT.findall(p)) for words, p in zip(unknown, prompts, strict=True))
        lengths = torch.tensor([len(row) for row in tokens.rows])
        width = self.cfg.max_tokens if self.cfg.attend_padding else int(lengths.max())
        if self.cfg.attend_padding:
            lengths = torch.full_like(lengths, width)
        return tokens.table(int(self.tokenizer.pad_token_id), width), lengths, unknown, tokens.cut

    @staticmethod
    def published_name(name: str) -> str | None:
        """A name in published files of T5 (transformers' T5EncoderModel) -> ours; None for the decoder's."""
        return None if name.startswith(("decoder.", "lm_head.")) else f"model.{name}"

    def encode_ids(self, ids: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (b, n, width)

    def forward(self, prompts: list[str]) -> TextFeatures:
        ids, lengths, unknown, cut = self.tokenize(prompts)
        # Of a streamed encoder the weights are on the meta device between calls; its hooks move what it is called with.
        if (device := next(self.model.parameters()).device).type != "meta":
            ids, lengths = ids.to(device), lengths.to(device)
        return TextFeatures(self.encode_ids(ids, lengths), lengths, unknown, cut)
