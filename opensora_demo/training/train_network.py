"""Train a diffusion transformer and its text encoders together, on a pool of latents; captions are drawn afresh.

One job for each era of Open-Sora: rectified flow with cross-attention (STDiT3), diffusion with learned variance and
pooled text (DiT), rectified flow over one sequence of text and video (MMDiT).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from opensora_demo.catalog import ModelSpec
from opensora_demo.models.dit import DiT, LabelEmbedder
from opensora_demo.models.mmdit import MMDiT
from opensora_demo.models.stdit3 import STDiT3, Watched
from opensora_demo.nn.embeddings import Mlp
from opensora_demo.nn.patch import patch_grid
from opensora_demo.runtime.bundle import build_network
from opensora_demo.sampling.iddpm import TIMESTEPS, Diffusion
from opensora_demo.sampling.rectified_flow import noised
from opensora_demo.sampling.schedule import shift_time
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.prompts import add_fps_and_motion
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.toy.captions import caption_with_spans, look_alikes
from opensora_demo.toy.spans import Span
from opensora_demo.toy.worlds import Scene
from opensora_demo.training.pool import load_masks, load_pool
from opensora_demo.training.precision import half_precision
from opensora_demo.training.teacher import Lesson, Teacher
from opensora_demo.weights.reading import load_module, read_state


class TextToVideo(nn.Module):
    """The trained parts under one roof, so that one optimiser and one checkpoint hold them.

    `null` is the learned table that stands for no text, which the networks keep as a buffer.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Path, *, align: bool = False) -> None:
        """`align` adds the head that training asks for the clean latent half way through the blocks."""
        super().__init__()
        if spec.text is not None:
            self.text = T5TextEncoder(spec.text, tokenizer)
        if spec.clip is not None:
            self.clip = ClipTextEncoder(spec.clip, tokenizer)
        network = build_network(spec.network)
        assert isinstance(network, STDiT3 | DiT | MMDiT)
        self.dit = network
        if (table := self.null_table()) is not None:
            self.null = nn.Parameter(torch.randn_like(table) / table.shape[1] ** 0.5)
        if align and isinstance(network, STDiT3):
            width = network.cfg.width
            self.projector = Mlp(width, width, math.prod(network.cfg.patch) * network.cfg.in_channels)

    def null_table(self) -> Tensor | None:
        """(n, c), where the network keeps one."""
        if isinstance(self.dit, MMDiT) or (isinstance(self.dit, DiT) and self.dit.cfg.classes):
            return None
        return self.dit.get_buffer("y_embedder.y_embedding")

    def blocks(self) -> list[nn.Module]:
        return [block for part in self.dit.children() if isinstance(part, nn.ModuleList) for block in part]

    def parts(self) -> dict[str, nn.Module]:
        """What is exported, by the field of `WeightFiles` that names its files; `null` is put in its place."""
        if (table := self.null_table()) is not None:
            table.copy_(self.null.detach())
        found = {"network": self.dit, "text": getattr(self, "text", None), "clip": getattr(self, "clip", None)}
        return {name: part for name, part in found.items() if part is not None}


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): each block keeps its
    inputs only, and its forward pass runs again when the gradient comes. Gradients are the same."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Weight files to go on from, instead of from nothing: `parts` as in TextToVideo.parts, and the tokenizer that
    they were trained with."""

    parts: Mapping[str, tuple[Path, ...]]
    tokenizer: Path


def read_words(tokenizer: Path) -> dict[str, int]:
    return dict(json.loads(tokenizer.read_text())["model"]["vocab"])


def grow(both: TextToVideo, start: Started, tokenizer: Path) -> None:
    """Load weights whose tokenizer may have known other words and whose prompts may have been shorter; a part that
    `start` does not name stays as it is.

    An embedding goes with its word; a new word starts from a word of the same meaning, if the grammar knows one.
    """
    old, new, alike = read_words(start.tokenizer), read_words(tokenizer), look_alikes()
    for name, part in both.parts().items():
        if name not in start.parts:
            continue
        state, own = read_state(list(start.parts[name])), part.state_dict()
        for key in state:
            if key.endswith("y_embedding"):
                state[key] = torch.cat([state[key], own[key][len(state[key]) :].to(state[key])])
                both.null.data.copy_(state[key])
            elif old != new and key.endswith(("shared.weight", "embed_tokens.weight", "token_embedding.weight")):
                before, table = state[key].float(), own[key].clone()
                known, generator = before[: len(old)], torch.Generator().manual_seed(0)
                table.copy_(known.mean(0) + known.std(0) * torch.randn(table.shape, generator=generator))
                for word, row in new.items():
                    if word in old or alike.get(word) in old:
                        table[row] = before[old.get(word, old.get(alike.get(word, ""), 0))]
                state[key] = table
        part.load_state_dict(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """Another network that training begins with: its `files`, and which of its `blocks` become ours, in order. The way
    that its condition comes in is not taken: text or classes begin anew."""

    files: tuple[Path, ...]
    blocks: tuple[int, ...]

    def put_into(self, network: nn.Module) -> list[str]:
        """Answers the names that were taken: all that `network` has in the same shape."""
        taken, own = {}, network.state_dict()
        place = {str(block): str(index) for index, block in enumerate(self.blocks)}
        for name, value in read_state(list(self.files)).items():
            if _CONDITION.search(name):
                continue
            if (found := _BLOCK.match(name)) is not None:
                if found[2] not in place:
                    continue
                name = f"{found[1]}.{place[found[2]]}.{found[3]}"
            if name in own and own[name].shape == value.shape:
                taken[name] = value
        network.load_state_dict(taken, strict=False)
        return sorted(taken)


_BLOCK = re.compile(r"(\w*blocks)\.(\d+)\.(.*)")
_CONDITION = re.compile(r"\bcross_attn\b|^y_embedder\b")


def draw_times(count: int, generator: torch.Generator, mean: float) -> Tensor:
    """Times (count) in (0, 1): a third logit-normal (Esser et al., 2024), the others uniform and shifted by 4 to noise.

    Where an object goes is decided in the noisiest steps, which a logit-normal alone hardly visits.
    """
    middle = torch.sigmoid(torch.randn(count, generator=generator) + mean)
    u = torch.rand(count, generator=generator)
    noisy = torch.rand(count, generator=generator) < 2 / 3
    return torch.where(noisy, shift_time(u, 4.0), middle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What training asks beside the plain loss; each is off by default.

    noises: a clip takes the nearest of so many draws of noise (Li et al., "Immiscible diffusion", arXiv 2406.12303).
    grounding: weight of the loss that asks the attention to an object's words to lie where the object is
    (Wang et al., "TokenCompose", arXiv 2312.03626, eq. 3).
    rooms: weight of the same loss for the half of the frame that each of two objects keeps to, at every noise level:
    it is known before there is anything to see.
    frame_times: share of clips whose latent frames are noised each to a time of its own (Chen et al., "Diffusion
    forcing", arXiv 2407.01392).
    alignment: weight of one minus the cosine between a projection of the middle tokens and the VAE encoder's features
    of their patches, the clean latent (after Yu et al., "REPA", arXiv 2410.06940, whose encoder is another network).
    """

    noises: int = 1
    grounding: float = 0.0
    rooms: float = 0.0
    alignment: float = 0.0
    frame_times: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """What the captions of training are like: shares of them in 0..1.

    omit: of each attribute that an ordinary caption leaves out; incomplete: of captions that leave out each with
    probability 1/2; foreign: of captions that are another clip's; chinese: of captions in Chinese.
    """

    omit: float = 0.04
    incomplete: float = 0.0
    foreign: float = 0.0
    chinese: float = 0.12

    def draw(self, scenes: list[Scene], rng: np.random.Generator) -> tuple[list[str], list[tuple[Span, ...]]]:
        """A caption for each scene, and which of its words describe which object; of a foreign one none do."""
        drawn = []
        for scene in scenes:
            incomplete = self.incomplete > 0 and rng.random() < self.incomplete
            drawn.append(caption_with_spans(scene, rng, omit=0.5 if incomplete else self.omit, chinese=self.chinese))
        prompts, spans = [text for text, _ in drawn], [found for _, found in drawn]
        if self.foreign > 0:
            for i in np.flatnonzero(rng.random(len(scenes)) < self.foreign):
                prompts[i], spans[i] = drawn[(i + 1 + rng.integers(max(len(scenes) - 1, 1))) % len(scenes)][0], ()
        return prompts, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """x0 and noise (b, c, t, h, w); dropped and given (b) say which prompts are not told and which first frames are
    given; lone (b, c, 1, h, w) is the given frame encoded by itself, where the codec is not causal.

    scenes are what the clips show; spans name the words about each object; masks (b, 2, t, h, w) in 0..1 say how much
    of a cell it covers.
    """

    x0: Tensor
    noise: Tensor
    prompts: list[str]
    dropped: Tensor
    given: Tensor
    fps: Tensor
    lone: Tensor | None = None
    scenes: list[Scene] = field(default_factory=list)
    spans: list[tuple[Span, ...]] = field(default_factory=list)
    masks: Tensor | None = None

    def to(self, device: str) -> Batch:
        moved: dict[str, Any] = {}
        for part in fields(self):
            if isinstance(value := getattr(self, part.name), Tensor):
                moved[part.name] = value.to(device)
        return replace(self, **moved)


@dataclass
class NetworkJob:
    """What the three have in common: the pool, and how a batch is drawn from it.

    `shift` and `scale` (1, c, 1, 1, 1) normalise the pool's latents. `lone` says that their first frame is a lone
    frame's latent. A share of batches is of short clips.
    """

    spec: ModelSpec
    tokenizer: Path
    pool: Path
    shift: Tensor
    scale: Tensor
    batch: int = 32
    lone: bool = False
    t_mean: float = 0.3
    caption_dropout: float = 0.1
    reference_share: float = 0.2
    short_share: float = 0.1
    captions: Captions = field(default_factory=Captions)
    objective: Objective = field(default_factory=Objective)
    bfloat16: bool = True
    compiled: bool = False  # 1.2 x as fast on two cores, after a minute of compiling
    checkpointing: bool = False  # blocks keep only what goes in and are computed again on the way back
    device: str = "cpu"
    start: Started | None = None
    trunk: Trunk | None = None
    text_weights: tuple[Path, ...] = ()  # of an encoder that can read (`train_text`), and is left as it is
    lesson: Lesson | None = None

    def __post_init__(self) -> None:
        self.model = TextToVideo(self.spec, self.tokenizer, align=self.objective.alignment > 0)
        self.model.dit.initialise()
        if self.checkpointing:
            checkpoint_blocks(self.model.blocks())
        if self.compiled:
            for block in self.model.blocks():
                block.compile()
        self.latents, self.scenes = load_pool(self.pool)
        self.masks = load_masks(self.pool) if self.objective.grounding else None
        if self.trunk is not None:
            self.trunk.put_into(self.model.dit)
        if self.start is not None:
            with torch.no_grad():
                grow(self.model, self.start, self.tokenizer)
        if self.text_weights:
            cfg = self.spec.text
            assert cfg is not None
            self.model.text = load_module(
                lambda: T5TextEncoder(cfg, self.tokenizer), self.text_weights, "text", aliases=T5TextEncoder.aliases
            )
        self.model.to(self.device)
        self.teacher = None if self.lesson is None else Teacher(self.lesson, self.device)

    def draw(self, rng: np.random.Generator, generator: torch.Generator, short: bool) -> Batch:
        chosen = np.sort(rng.integers(len(self.scenes), size=self.batch))
        x0 = (torch.from_numpy(self.latents[chosen]).float() - self.shift) / self.scale
        scenes = [self.scenes[i] for i in chosen]
        lone = None
        if self.lone:
            lone, x0 = x0[:, :, :1], x0[:, :, 1:]
        if short:
            frames = int(rng.integers(1, x0.shape[2]))
            x0 = lone if lone is not None and frames == 1 else x0[:, :, :frames]
        masks = None
        if self.masks is not None:
            masks = torch.from_numpy(self.masks[chosen]).float()[:, :, : x0.shape[2]] / 255
        prompts, spans = self.captions.draw(scenes, rng)
        return Batch(
            x0=x0,
            noise=nearest_noise(x0, self.objective.noises, generator),
            prompts=prompts,
            dropped=torch.rand(len(x0), generator=generator) < self.caption_dropout,
            given=(torch.rand(len(x0), generator=generator) < self.reference_share) & (x0.shape[2] > 1),
            fps=torch.tensor([float(s.fps) for s in scenes]),
            lone=lone,
            scenes=scenes,
            spans=spans,
            masks=masks,
        )

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        short = bool(rng.random() < self.short_share)
        batch = self.draw(rng, generator, short)
        # Compiled code that has to fit every length is slower than code that is not compiled.
        with torch.compiler.set_stance("force_eager" if short else "default"):
            return self.loss_of(batch.to(self.device), generator)

    def autocast(self) -> torch.autocast:
        return half_precision(self.device, enabled=self.bfloat16)

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError


LEAST_TIME = 0.05  # below it the velocity of a predicted clean latent would weigh its error beyond measure (JiT)


def nearest_noise(x0: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """For each x0 (b, ...) the nearest of `draws` draws of standard normal noise."""
    noise = torch.randn(draws, *x0.shape, generator=generator)
    if draws == 1:
        return noise[0]
    nearest = (noise - x0).flatten(2).square().sum(2).argmin(0)  # (b)
    return noise[nearest, torch.arange(len(x0))]


def object_words(text: T5TextEncoder, prompts: list[str], spans: list[tuple[Span, ...]], tokens: int) -> Tensor:
    """Which tokens describe which object: boolean (b, 2, tokens)."""
    found = np.zeros((len(prompts), 2, tokens), bool)
    encoded = text.tokenizer(prompts, add_special_tokens=False, return_offsets_mapping=True)
    for row, (offsets, parts) in enumerate(zip(encoded["offset_mapping"], spans, strict=True)):
        if not offsets or not parts:
            continue
        start, end = np.array(offsets[: text.cfg.max_tokens - 1]).T
        for part in parts:
            found[row, part.index, : len(start)] |= (part.start <= start) & (end <= part.end)
    return torch.from_numpy(found)


def room_share(scenes: list[Scene], grid: tuple[int, int, int]) -> Tensor:
    """Which of a grid's (t, h, w) tokens are in the half of each of two objects: (b, 2, t h w), 0 or 1; of a lone
    object all."""
    t, h, w = grid
    share = torch.zeros(len(scenes), 2, t, h, w)
    for row, scene in enumerate(scenes):
        for k, one in enumerate(scene.objects):
            rows = {"top": slice(0, h // 2), "bottom": slice(h // 2, h)}.get(one.room, slice(None))
            columns = {"left": slice(0, w // 2), "right": slice(w // 2, w)}.get(one.room, slice(None))
            share[row, k, :, rows, columns] = 1
    return share.flatten(2)


def patch_share(masks: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """How much of each token's patch an object covers: (b, 2, t, h, w) -> (b, 2, t s), both in 0..1."""
    return F.avg_pool3d(masks, patch, patch, ceil_mode=True, count_include_pad=False).flatten(2)


TOUCHED = 0.05  # share of a patch from which on the object counts as being there


def grounding_loss(attention: list[Tensor], words: Tensor, covered: Tensor, weight: Tensor) -> Tensor:
    """(1 - a)^2, where a is the share of a word's attention that lies on its object; the mean over words and layers.

    attention: weights (b, t s, n) of each layer; words (b, 2, n); covered (b, 2, t s); weight (b) of each clip, which
    is small where noise hides the object. Zero where no word is an object's. TokenCompose, eq. 3.
    """
    there = (covered > TOUCHED).float()
    seen = words & there.any(2)[..., None]  # an object may be out of sight
    total = (seen * weight[:, None, None]).sum().clamp(min=1e-6)
    loss = covered.new_zeros(())
    for layer in attention:
        share = layer.float()
        inside = torch.einsum("bun,bku->bkn", share, there) / share.sum(1, keepdim=True).clamp(min=1e-6)
        loss = loss + (seen * weight[:, None, None] * (1 - inside).square()).sum() / total
    return loss / len(attention)


def alignment_loss(projected: Tensor, x0: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """One minus the cosine between projected tokens (b, t, s, c pt ph pw) and the patches of x0 (b, c, t, h, w)."""
    pt, ph, pw = patch
    target = rearrange(x0, "b c (t pt) (h ph) (w pw) -> b t (h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
    return 1 - F.cosine_similarity(projected, target, dim=-1).mean()


class STDiT3Job(NetworkJob):
    """Open-Sora 1.2: x_t = (1 - t) x0 + t noise, the network predicts data - noise (Liu et al., 2022); given frames
    are clean and count as t = 0. A dropped prompt reads the null features at its own length."""

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network, objective = batch.x0, batch.noise, self.model.dit, self.objective
        assert isinstance(network, STDiT3)
        watched = Watched() if objective.grounding or objective.rooms or objective.alignment else None
        height_px, width_px = self.spec.limits.size_px
        t = draw_times(len(x0), generator, self.t_mean).to(x0.device)[:, None]  # (b, 1), or (b, t) of each frame
        if objective.frame_times:
            t = self.times_of_frames(t.expand(-1, x0.shape[2]), generator)
        x_mask = torch.ones(len(x0), x0.shape[2], dtype=torch.bool, device=x0.device)
        x_mask[:, 0] = ~batch.given
        at = torch.where(x_mask, t, 0.0)[:, None, :, None, None]
        with self.autocast():
            told = self.model.text(batch.prompts)
            x = noised(x0, noise, at)
            null = self.model.null[: told.y.shape[1]].to(told.y.dtype)
            y = torch.where(batch.dropped[:, None, None], null, told.y)
            out = network(
                x,
                1000 * (t if objective.frame_times else t[:, 0]),
                network.project_text(y, told.lengths),
                fps=batch.fps,
                height_px=height_px,
                width_px=width_px,
                x_mask=x_mask,
                watched=watched,
            )
        if network.cfg.prediction == "clean":  # the error of the velocity that the family makes of it
            difference = (x0 - out) / t.clamp(min=LEAST_TIME)[:, None, :, None, None]
        else:
            difference = out - (x0 - noise)
        error = difference.square() * x_mask[:, None, :, None, None]
        loss = error.sum() / (x_mask.sum() * error[0, :, 0].numel())
        metrics: dict[str, float] = {}
        if watched is not None and (objective.grounding or objective.rooms):
            words = object_words(self.model.text, batch.prompts, batch.spans, told.y.shape[1]).to(x0.device)
            words &= ~batch.dropped[:, None, None]
            if objective.grounding and batch.masks is not None:
                covered = patch_share(batch.masks, network.cfg.patch)
                grounding = grounding_loss(watched.attention, words, covered, 1 - t.mean(1))
                loss = loss + objective.grounding * grounding
                metrics["grounding"] = float(grounding.detach())
            if objective.rooms:
                own = words & ~words.flip(1)  # not those about both
                size = (x0.shape[2], x0.shape[3], x0.shape[4])
                half = room_share(batch.scenes, patch_grid(network.cfg.patch, size)).to(x0.device)
                two = torch.tensor([scene.companion is not None for scene in batch.scenes], device=x0.device)
                rooms = grounding_loss(watched.attention, own, half, two.float())
                loss = loss + objective.rooms * rooms
                metrics["rooms"] = float(rooms.detach())
        if watched is not None and watched.middle is not None and objective.alignment:
            alignment = alignment_loss(self.model.projector(watched.middle.float()), x0, network.cfg.patch)
            loss = loss + objective.alignment * alignment
            metrics["alignment"] = float(alignment.detach())
        return loss, metrics

    def times_of_frames(self, t: Tensor, generator: torch.Generator) -> Tensor:
        """t (b, t'), one for all frames of a clip; of a share of the clips each frame gets a draw of its own."""
        own = draw_times(t.numel(), generator, self.t_mean).view(t.shape).to(t.device)
        chosen = torch.rand(len(t), 1, generator=generator) < self.objective.frame_times
        return torch.where(chosen.to(t.device), own, t)


MAX_RATIO = 8.0  # noise levels sigma / alpha above it count no more


class DiTJob(NetworkJob):
    """Open-Sora 1.0: squared error of the noise, plus the variational bound, which trains the variance alone (Nichol &
    Dhariwal, 2021, L_hybrid). Clips have the network's one length, and no frame is given.

    Times are drawn as for a flow and taken at the same ratio r = sigma / alpha of noise to data; an error of the noise
    counts (1 + r)^2, which makes it the error of the flow's velocity. By equal weights what an object is and does,
    which is decided at r of 1 to 8, would count for next to nothing.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        process = Diffusion.respaced(str(TIMESTEPS))
        self.ratios = (1 / process.alphas_cumprod - 1).sqrt().float().to(self.device)  # (1000), rising
        self.tables = {
            "alpha": process.alphas_cumprod.float(),
            "from_x0": process.posterior_mean_coef1.float(),
            "from_x": process.posterior_mean_coef2.float(),
            "least": process.posterior_log_variance_clipped.float(),
            "most": process.betas.log().float(),
        }
        self.tables = {name: table.to(self.device) for name, table in self.tables.items()}

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.loss_of(self.draw(rng, generator, short=False).to(self.device), generator)

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network = batch.x0, batch.noise, self.model.dit
        assert isinstance(network, DiT)
        t = draw_times(len(x0), generator, self.t_mean).to(x0.device)
        timestep = torch.searchsorted(self.ratios, t / (1 - t)).clamp(max=TIMESTEPS - 1)
        weight = (1 + self.ratios[timestep].clamp(max=MAX_RATIO)).square()
        at = {name: table[timestep].view(-1, 1, 1, 1, 1) for name, table in self.tables.items()}
        x = at["alpha"].sqrt() * x0 + (1 - at["alpha"]).sqrt() * noise
        with self.autocast():
            out = network(x, timestep.float(), self.condition(batch))
        eps, fraction = out.float().chunk(2, dim=1)
        target = noise if self.teacher is None else self.taught_noise(self.teacher, batch, x, self.ratios[timestep])
        error = ((eps - target).square().mean((1, 2, 3, 4)) * weight).sum() / weight.sum()

        guess = (x - (1 - at["alpha"]).sqrt() * eps.detach()) * at["alpha"].rsqrt()
        true_mean, mean = (at["from_x0"] * clean + at["from_x"] * x for clean in (x0, guess))
        log_variance = torch.lerp(at["least"], at["most"], (fraction + 1) / 2)
        apart = (true_mean - mean).square()
        kl = 0.5 * (log_variance - at["least"] - 1 + (at["least"] - log_variance).exp() + apart * (-log_variance).exp())
        last = 0.5 * (math.log(2 * math.pi) + log_variance + (x0 - mean).square() * (-log_variance).exp())
        bound = torch.where((timestep == 0).view(-1, 1, 1, 1, 1), last, kl).mean() / math.log(2)
        return error + bound, {"error": float(error.detach()), "bound": float(bound.detach())}

    def taught_noise(self, teacher: Teacher, batch: Batch, x: Tensor, ratio: Tensor) -> Tensor:
        """The noise that a flow model finds in x (b, c, t, h, w) = alpha x0 + sigma noise, at ratios sigma / alpha (b).

        With t = ratio / (1 + ratio), x over (alpha + sigma) is the flow's (1 - t) x0 + t noise.
        """
        t = ratio / (1 + ratio)
        at = t.view(-1, 1, 1, 1, 1)
        flow = x * ((1 - at).square() + at.square()).sqrt()
        with self.autocast():
            velocity = teacher.velocity(flow, t, self.taught_prompts(batch), batch.dropped, batch.fps)
        return flow - (1 - at) * velocity

    def taught_prompts(self, batch: Batch) -> list[str]:
        """What a teacher reads."""
        return batch.prompts

    def condition(self, batch: Batch) -> Tensor:
        """Pooled text (b, c), or the null vector where it is dropped."""
        pooled = self.model.clip(batch.prompts).pooled
        return torch.where(batch.dropped[:, None], self.model.null.to(pooled.dtype), pooled)


class LabelJob(DiTJob):
    """The same with a class for a condition: the shape of a clip's first object, or the null class where it is
    dropped."""

    def condition(self, batch: Batch) -> Tensor:
        names = [name for name, _ in self.spec.labels]
        labels = torch.tensor([names.index(scene.objects[0].shape) for scene in batch.scenes]).to(self.device)
        embedder = self.model.dit.y_embedder
        assert isinstance(embedder, LabelEmbedder)
        return embedder.token_drop(labels, batch.dropped)

    def taught_prompts(self, batch: Batch) -> list[str]:
        return [f"a {scene.objects[0].shape}" for scene in batch.scenes]


class MMDiTJob(NetworkJob):
    """Open-Sora 2.0: x_t = (1 - t) x0 + t noise, the network predicts noise - data. FPS is words of the prompt, a
    dropped prompt is the empty one; given frames are told as a mask and a latent beside the noisy one."""

    def loss_of(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, noise, network = batch.x0, batch.noise, self.model.dit
        assert isinstance(network, MMDiT)
        given = batch.given[:, None, None, None, None]
        mask = torch.zeros_like(x0[:, :1])
        mask[:, :, :1] = given.to(mask.dtype)
        if batch.lone is not None and x0.shape[2] > 1:
            x0 = torch.cat([torch.where(given, batch.lone, x0[:, :, :1]), x0[:, :, 1:]], dim=2)
        t = draw_times(len(x0), generator, self.t_mean).to(x0.device)
        prompts = [
            "" if dropped else add_fps_and_motion(prompt, fps, None)
            for prompt, fps, dropped in zip(batch.prompts, batch.fps.tolist(), batch.dropped.tolist(), strict=True)
        ]
        with self.autocast():
            v = network(
                noised(x0, noise, t.view(-1, 1, 1, 1, 1)),
                t,
                self.model.text(prompts).y,
                self.model.clip(prompts).pooled,
                cond=torch.cat([mask, mask * x0], dim=1),
            )
        return (v - (noise - x0)).square().mean(), {}
