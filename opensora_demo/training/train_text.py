"""Teach a text encoder to read, on captions alone, before any picture is seen.

    python -m opensora_demo.training text --cpu-minutes 6

Published models take a T5 that has read the web; one that is trained from nothing by the loss of a diffusion model
never learns whose colour is whose. Here every word about an object has to say all of that object: shape, colour,
motion, size, speed and where in the frame it is; and every word has to say what the background is and how many objects
there are. A linear layer reads each off, so that attention can.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.text.t5 import T5Config, T5TextEncoder
from opensora_demo.toy.captions import look_alikes
from opensora_demo.toy.worlds import (
    ARRANGEMENTS,
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    ROOMS,
    SHAPES,
    SIZES,
    SPEEDS,
    Scene,
    sample_scene,
)
from opensora_demo.training.precision import half_precision
from opensora_demo.training.train_network import Captions, object_words, read_words
from opensora_demo.weights.reading import load_module, read_state

OF_OBJECT: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "size": SIZES,
    "speed": SPEEDS,
    "room": ROOMS,
    "mention": ("first", "second"),  # in the caption: what tells the phrases apart
}
OF_SCENE: Mapping[str, tuple[str, ...]] = {"background": BACKGROUNDS, "arrangement": ARRANGEMENTS}
RELATIVE = "model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
GAIN = 8.0  # of features before the probes: T5's are small, and its probes would learn slowly
LENGTHS = {(False, False): 16, (True, False): 32, (False, True): 22, (True, True): 44}  # usual tokens: (two, Chinese)
DISTANCE_EVERY = 3  # steps: comparing takes as long as learning
NOBODY = -100  # a token that says nothing of this: cross_entropy leaves it out


@dataclass(frozen=True, slots=True)
class Start:
    """An encoder of fewer layers to go on from, whose features of lone objects and of single phrases are kept: what
    was trained on them goes on."""

    cfg: T5Config
    weights: tuple[Path, ...]
    tokenizer: Path


@torch.no_grad()
def grow_text(model: T5TextEncoder, start: Start, tokenizer: Path) -> None:
    """Load `start` into an encoder that may have more layers and words. Layers that are new begin as the identity, new
    words as an old one of the same meaning."""
    state, own = read_state(list(start.weights)), model.state_dict()
    old, new, alike = read_words(start.tokenizer), read_words(tokenizer), look_alikes()
    for name, value in own.items():
        if name.endswith(("shared.weight", "embed_tokens.weight")):
            before = next(v for k, v in state.items() if k.endswith("shared.weight"))
            for word, row in new.items():
                known = old.get(word, old.get(alike.get(word, "")))
                if known is not None:
                    value[row] = before[known]
        elif name == RELATIVE:
            value.add_(state[name])
        elif name in state:
            value.copy_(state[name])
        elif name.endswith((".o.weight", ".wo.weight")):
            value.zero_()


def look_around(heads: int, buckets: int = 32, largest: int = 128) -> Tensor:
    """Biases (buckets, heads) of T5's relative positions to start from: by turns a head looks back, all the way; at
    what is near; near and back; ahead, all the way. From zeros, as T5 begins, it is found late
    which words belong together.

    Of the buckets one half is for keys at or before the query, the other for those after it (T5, section 2.1).
    """
    half = buckets // 2
    exact = half // 2
    far = exact * (largest / exact) ** ((torch.arange(half) - exact + 0.5) / (half - exact))
    distance = torch.where(torch.arange(half) < exact, torch.arange(half).float(), far)
    near, nowhere, anywhere = -0.4 * distance.clamp(max=16), torch.full((half,), -4.0), torch.full((half,), -0.5)
    kinds = ((anywhere, nowhere), (near, near), (near, nowhere), (nowhere, torch.maximum(near, torch.tensor(-1.5))))
    table = torch.stack([torch.cat(kinds[head % len(kinds)]) for head in range(heads)], 1)
    table[0] = table[0].clamp(min=0.0)  # a word may always look at itself
    return table


def labels_of(scenes: list[Scene], words: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Class of each token (b, n), or NOBODY. `words` (b, 2, n) says which tokens describe which object; of a lone one
    the end mark does too. Words about both objects say what both have in common."""
    b, _, n = words.shape
    found = {name: torch.full((b, n), NOBODY) for name in (*OF_OBJECT, *OF_SCENE)}
    for row, scene in enumerate(scenes):
        length = int(lengths[row])
        for name, classes in OF_SCENE.items():
            found[name][row, :length] = classes.index(getattr(scene, name))
        described = [int(words[row, k].int().argmax()) for k in range(len(scene.objects))]
        for k, one in enumerate(scene.objects):
            mine = words[row, k].clone()
            if scene.companion is None:
                mine[length - 1] = True
            both = words[row].all(0)
            for name, classes in OF_OBJECT.items():
                later = described[k] > min(described)
                label = int(later) if name == "mention" else classes.index(getattr(one, name))
                value = found[name][row]
                differs = both & (value != NOBODY) & (value != label)
                value[mine] = label
                value[differs] = NOBODY
    return found


@dataclass
class TextJob:
    """Cross-entropy of linear probes, the sum over what they read; and, from an earlier encoder, the distance to what
    it says of each phrase alone, in units of its variance.

    A batch is of captions of one kind, of one object or of two, in one language, so that little of it is padding;
    `batch` is about how many tokens it has.
    """

    cfg: T5Config
    tokenizer: Path
    start: Start | None = None
    batch: int = 1100
    pairs: float = 0.8
    chinese: float = 0.25
    omit: float = 0.04
    distance_weight: float = 0.25

    def __post_init__(self) -> None:
        self.model = T5TextEncoder(self.cfg, self.tokenizer)
        biases = self.model.get_parameter(RELATIVE)
        biases.data.copy_(look_around(self.cfg.heads, len(biases)))
        self.teacher: T5TextEncoder | None = None
        if self.start is not None:
            start = self.start
            grow_text(self.model, start, self.tokenizer)
            self.teacher = load_module(
                lambda: T5TextEncoder(start.cfg, start.tokenizer), start.weights, "text", aliases=T5TextEncoder.aliases
            )
        read = {**OF_OBJECT, **OF_SCENE}
        self.probes = nn.ModuleDict({name: nn.Linear(self.cfg.width, len(of)) for name, of in read.items()})
        self.model.projector = self.probes  # so that it is trained and saved, and not loaded (`load_ema`)

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[str], Tensor, Tensor, Tensor]:
        """Scenes, captions, ids (b, n), lengths (b), and which tokens describe which object (b, 2, n)."""
        two, chinese = bool(rng.random() < self.pairs), bool(rng.random() < self.chinese)
        count = self.batch // LENGTHS[two, chinese]
        scenes = [sample_scene(rng, held_out=None, pairs=float(two)) for _ in range(count)]
        prompts, spans = Captions(omit=self.omit, chinese=float(chinese)).draw(scenes, rng)
        ids, lengths, _, _ = self.model.tokenize(prompts)
        return scenes, prompts, ids, lengths, object_words(self.model, prompts, spans, ids.shape[1])

    @torch.no_grad()
    def alone(self, prompts: list[str], words: Tensor, lengths: Tensor) -> Tensor:
        """What the earlier encoder says of each token (b, n, c) where words about the other object are hidden; of words
        about no object where all such are."""
        assert self.teacher is not None
        ids, _, _, _ = self.teacher.tokenize(prompts)
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        two = words.any(2).all(1)  # (b)
        said = self.teacher.model(input_ids=ids, attention_mask=real.long()).last_hidden_state
        rows = two.nonzero().flatten()
        if len(rows):
            own = words[rows] & ~words[rows].flip(1)  # (r, 2, n): of one object only
            hidden = torch.stack([own[:, 1], own[:, 0], own.any(1)])  # (3, r, n)
            seen = real[rows] & ~hidden
            views = self.teacher.model(
                input_ids=ids[rows].repeat(3, 1), attention_mask=seen.flatten(0, 1).long()
            ).last_hidden_state.unflatten(0, (3, len(rows)))
            picked = torch.where(own[:, 0, :, None], views[0], torch.where(own[:, 1, :, None], views[1], views[2]))
            both = words[rows].all(1)[..., None]
            said[rows] = torch.where(both, said[rows], picked)
        return said

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        scenes, prompts, ids, lengths, words = self.draw(rng)
        with half_precision("cpu"):
            y = self.model.encode_ids(ids, lengths)
        y = y.float()
        labels, metrics = labels_of(scenes, words, lengths), {}
        loss = y.new_zeros(())
        for name, probe in self.probes.items():
            logits, label = probe(GAIN * y).flatten(0, 1), labels[name].flatten()
            loss = loss + F.cross_entropy(logits, label, ignore_index=NOBODY)
            at = label != NOBODY
            metrics[name] = float((logits.detach()[at].argmax(-1) == label[at]).float().mean())
        if self.teacher is not None and step % DISTANCE_EVERY == 0:
            with half_precision("cpu"):
                target = self.alone(prompts, words, lengths)
            target = target.float()
            real = (torch.arange(ids.shape[1]) < lengths[:, None])[..., None]
            distance = ((y - target).square() * real).sum() / (target.square() * real).sum()
            loss = loss + DISTANCE_EVERY * self.distance_weight * distance
            metrics["distance"] = float(distance.detach())
        return loss, metrics


@torch.inference_mode()
def accuracy(job: TextJob, captions: int, *, pairs: float, chinese: float, seed: int = 505) -> dict[str, float]:
    """Share of the tokens of new captions that each probe reads right; none of the captions omits anything."""
    rng, counts = np.random.default_rng(seed), dict[str, tuple[int, int]]()
    job = copy(job)
    job.pairs, job.chinese, job.omit = pairs, chinese, 0.0
    read = 0
    while read < captions:
        scenes, _, ids, lengths, words = job.draw(rng)
        read += len(scenes)
        y = job.model.encode_ids(ids, lengths)
        for name, label in labels_of(scenes, words, lengths).items():
            at = label != NOBODY
            right = job.probes[name](GAIN * y).argmax(-1) == label
            of, total = counts.get(name, (0, 0))
            counts[name] = (of + int(right[at].sum()), total + int(at.sum()))
    return {name: right / max(total, 1) for name, (right, total) in counts.items()}
