"""Checkpoints as they are published, with random values: the right files, names, shapes and numbers, no pictures.

    python -m benchmarks.synthetic opensora-1.2 --folder weights

What is measured on them (loading, memory, time) holds for the real ones. Values keep activations near one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.catalog.spec import HubFiles
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.runtime.bundle import build_codec, build_network
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.weights.store import ASSETS

SENTENCES = (
    "a red ball bouncing over a meadow", "a sailing boat on a calm lake at dawn", "the quick brown fox jumps",
    "four stars spinning at night, 24 FPS. 4 motion score. aesthetic score: 6.5",
)  # fmt: skip
_BLOCK = 1 << 24  # numbers drawn at once
_OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
_DTYPES = {"float32": ("F32", torch.float32), "bfloat16": ("BF16", torch.bfloat16)}

Shapes = dict[str, tuple[int, ...]]


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build().state_dict().items()}


def write_random(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, seed: int) -> None:
    """One safetensors file (its header's length, the header, the numbers), a block at a time: a checkpoint larger than
    memory can be written."""
    code, kind = _DTYPES[dtype]
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            left, scale, centre = math.prod(shape), *_spread(name, shape)
            while left:
                count = min(left, _BLOCK)
                values = torch.randn(count, generator=generator).mul_(scale).add_(centre).to(kind)
                out.write(values.view(torch.uint8).numpy().tobytes())
                left -= count


def _spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """(standard deviation, mean): matrices that keep the size of what they multiply, norms of one, no biases."""
    if name in ("scale", "shift"):
        return 0.0, float(name == "scale")
    if len(shape) < 2:
        return (0.0, 0.0) if name.endswith("bias") else (0.02, 1.0)
    return math.prod(shape[1:]) ** -0.5, 0.0


def published_t5(shapes: Shapes) -> Shapes:
    """Our names -> published ones; the embedding stands there once."""
    return {k.removeprefix("model."): v for k, v in shapes.items() if "embed_tokens" not in k}


def published_clip(shapes: Shapes) -> Shapes:
    """The text tower beside a trace of the other one."""
    text = {f"text_model.{k.removeprefix('model.')}": v for k, v in shapes.items()}
    return text | {"vision_model.embeddings.class_embedding": (8,), "logit_scale": ()}


def published_image_vae(shapes: Shapes) -> Shapes:
    """With the names of attention that diffusers had when it was published."""
    found: Shapes = {}
    for name, shape in shapes.items():
        for new, old in _OLD_ATTENTION.items():
            name = name.replace(new, old)
        found[name.removeprefix("module.")] = shape
    return found


def write_spiece(file: Path) -> None:
    """A SentencePiece model with T5's special tokens."""
    import sentencepiece

    file.parent.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 50), model_prefix=str(file.with_suffix("")), model_type="unigram",
        vocab_size=80, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    file.with_suffix(".vocab").unlink()


def write_clip_tokenizer(file: Path) -> None:
    """Byte pairs with CLIP's two marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=200, special_tokens=marks))
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(file))


def paths(place: HubFiles, folder: Path) -> list[Path]:
    return [folder / place.repo.split("/")[1] / name for name in place.files]


def write_checkpoint(spec: ModelSpec, folder: Path, *, seed: int = 0) -> int:
    """Every file of the first place of every part, under `folder` as a download would put it; what is there stays.
    Returns bytes of all of them."""
    hub = spec.published
    assert hub, f"{spec.id} is not published"
    places, tokenizer = hub.parts(), ASSETS / "nano" / "tokenizer.json"
    text, clip, image_vae = spec.text, spec.clip, isinstance(spec.codec, ImageVaeConfig)
    makers: dict[str, Callable[[], tuple[Shapes, str]]] = {
        "network": lambda: (shapes_of(lambda: build_network(spec.network)), hub.network_dtype),
        "codec": lambda: (
            (published_image_vae if image_vae else dict)(shapes_of(lambda: build_codec(spec.codec))),
            hub.codec_dtype,
        ),
    }
    if text is not None:
        makers["text"] = lambda: (published_t5(shapes_of(lambda: T5TextEncoder(text, tokenizer))), "bfloat16")
    if clip is not None:
        makers["clip"] = lambda: (published_clip(shapes_of(lambda: ClipTextEncoder(clip, tokenizer))), "float32")
    total = 0
    for part, found in places.items():
        (file,) = paths(found[0], folder)
        if not file.is_file():
            if part == "tokenizer":
                write_spiece(file)
            elif part == "clip_tokenizer":
                write_clip_tokenizer(file)
            else:
                shapes, dtype = makers[part]()
                half = file.with_name(file.name + ".writing")
                write_random(half, shapes, dtype, seed)
                half.replace(file)
        total += file.stat().st_size
        print(f"{file}  {file.stat().st_size / 1e9:.2f} GB")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--folder", type=Path, default=Path("weights"))
    args = parser.parse_args()
    print(f"{write_checkpoint(find_model(args.model), args.folder) / 1e9:.2f} GB together")


if __name__ == "__main__":
    main()
