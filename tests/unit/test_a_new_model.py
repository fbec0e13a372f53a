"""docs/adding_a_model.md, followed: a model that the package has never heard of, in the five diffs it names.

What stands here would be one file in `models/`, one in `families/` with its adapter, and one entry of the catalog.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opensora_demo.catalog import MODELS, ModelSpec, debug
from opensora_demo.catalog.sizes import square
from opensora_demo.errors import WeightsError
from opensora_demo.explain.run import Attentions, Progress, Tokens, explain
from opensora_demo.families import build
from opensora_demo.families.adapters.base import Adapter, AttentionSite, ModulationVectors, SelfAttentionSite
from opensora_demo.families.base import (
    Conditioning,
    ConditioningFrames,
    Draw,
    Encoders,
    Family,
    Grid,
    PooledEncoder,
    RunSettings,
    lacking,
)
from opensora_demo.families.branches import evaluate, guide_velocity
from opensora_demo.models.base import TextMode
from opensora_demo.nn.attention import SelfAttention
from opensora_demo.nn.embeddings import ScalarEmbedder
from opensora_demo.nn.modulation import modulate
from opensora_demo.nn.patch import PatchEmbed3D, unpatchify
from opensora_demo.pipeline import run
from opensora_demo.request.limits import Range
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import VideoShape
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.runtime.cost.counter import bytes_of
from opensora_demo.runtime.cost.estimator import Estimator, Machine, Rates
from opensora_demo.sampling import rectified_flow
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.guidance import ClassifierFree, Guidance, flow_levels
from opensora_demo.sampling.schedule import flow_times
from opensora_demo.sampling.step import Prediction, Step

PACKAGE = Path(__file__).resolve().parents[2] / "opensora_demo"
CPU = torch.device("cpu")

# --- 1. the network


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig:
    in_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 24
    heads: int = 2
    text_channels: int = 24
    text_mode: ClassVar[TextMode] = "pooled vector"
    reads_fps: ClassVar[bool] = False
    takes_loras: ClassVar[bool] = False

    def build(self) -> ToyNetwork:
        return ToyNetwork(self)


class ToyNetwork(nn.Module):
    """One block of attention over the whole clip, modulated by time and text."""

    def __init__(self, cfg: ToyConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.x_embedder = PatchEmbed3D(cfg.patch, cfg.in_channels, cfg.width)
        self.t_embedder = ScalarEmbedder(cfg.width)
        self.y_embedder = nn.Linear(cfg.text_channels, cfg.width)
        self.modulation = nn.Linear(cfg.width, 3 * cfg.width)
        self.attn = SelfAttention(cfg.width, cfg.heads)
        self.out = nn.Linear(cfg.width, 4 * cfg.in_channels)

    def forward(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3], x.shape[4])
        tokens = self.x_embedder(x)
        t = tokens.shape[1]
        tokens = tokens.flatten(1, 2)  # (b, t s, d)
        shift, scale, gate = self.modulation(self.t_embedder(time) + self.y_embedder(y))[:, None].chunk(3, dim=-1)
        tokens = tokens + gate * self.attn(modulate(tokens, shift, scale))
        return unpatchify(self.out(tokens).unflatten(1, (t, -1)), self.cfg.patch, size)


# --- 2. the conventions: a family, and the adapter of its network


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConditioning(Conditioning):
    y: Tensor


class ToyFamily(Family[ToyConditioning]):
    """A flow in the package's own sign; time is 0..10; the null prompt is the empty one."""

    time_scale = 10.0

    def __init__(self, text: PooledEncoder, adapter: ToyAdapter, sampler: RectifiedFlowConfig) -> None:
        super().__init__(adapter)
        self.text = text
        self.sampler = sampler

    def times(self, run: RunSettings, size: Grid) -> tuple[float, ...]:
        return flow_times(run.steps, self.sampler.ratio)

    def guidance(self, run: RunSettings, given: bool, size: Grid, times: tuple[float, ...]) -> Guidance:
        scales, rules = zip(*run.columns, strict=True)
        return ClassifierFree(scales, rules, flow_levels(times[:-1]))

    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: Grid) -> ToyConditioning:
        text = self.text([request.prompt, request.negative_prompt])
        times = self.times(request, size)
        return ToyConditioning(guidance=self.guidance(request, False, size, times), times=times, y=text.pooled)

    def own_predictions(
        self,
        x: Tensor,
        t: float,
        condition: ToyConditioning,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        def call(rows: list[int], branches: list[int]) -> Tensor:
            return self.call(x, self.time_scale * t, condition, rows, branches)

        return evaluate(call, wanted, shared=shared)

    def steps(
        self, noise: Tensor, condition: ToyConditioning, request: GenerationRequest, draw: Draw
    ) -> Iterator[Step]:
        def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
            wanted = self.wanted(condition.guidance, index)
            out = self.predictions(x, t, condition, wanted, shared=index == 0 and len(x) > 1)
            return guide_velocity(out, condition.guidance, index, x, t)

        yield from rectified_flow.sample(velocity, noise, condition.times)


class ToyAdapter(Adapter[ToyNetwork, ToyConditioning]):
    config = ToyConfig

    def family(self, spec: ModelSpec, encoders: Encoders) -> ToyFamily:
        if encoders.pooled is None or not isinstance(spec.sampler, RectifiedFlowConfig):
            raise lacking(spec)
        return ToyFamily(encoders.pooled, self, spec.sampler)

    def call(
        self,
        x: Tensor,
        time: Tensor,
        condition: ToyConditioning,
        rows: list[int],
        branches: list[int],
        x_mask: Tensor | None,
    ) -> Tensor:
        return self.network(x, time, condition.y[branches])

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        y = torch.empty(len(x), self.network.cfg.text_channels, device=x.device)
        return self.network(x, torch.ones(len(x), device=x.device), y)

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        return [(self.network.attn,)]

    def attention_sites(self) -> Iterator[AttentionSite]:
        yield SelfAttentionSite(0, "all", self.network.attn)

    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        return self.network.t_embedder, (self.network.modulation,)

    def embed_times(self, times: Tensor) -> Tensor:
        return self.network.t_embedder(times)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        yield ModulationVectors(0, "", ("attention",), self.network.modulation(embedded[0]).unflatten(-1, (3, -1)))


# --- 3. and 4. the entry of the catalog, a tiny one: its codec and its encoder are there already

TOY = replace(
    debug.DIT,
    id="toy",
    title="Toy",
    network=ToyConfig(),
    sampler=RectifiedFlowConfig(ratio=2.0),
    limits=replace(
        debug.DIT.limits, frames=(1, 5), default_frames=5, sizes=square(32), steps=Range(low=1, high=9, default=3)
    ),
)


# --- 5. the proof


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines that name it."""
    monkeypatch.setattr(build, "ADAPTERS", (*build.ADAPTERS, ToyAdapter))
    monkeypatch.setitem(MODELS, TOY.id, TOY)


def request_of(**raw: Any) -> GenerationRequest:
    return parse_request({"prompt": "a red ball", "seed": 1, **raw}, model_id=TOY.id, limits=TOY.limits)


def test_a_new_model_makes_clips() -> None:
    bundle = build_bundle(TOY, CPU)
    together = run(bundle, request_of(guidance=[1, 4])).clips
    alone = run(bundle, request_of(guidance=4)).clips
    assert together[1].frames.shape == (5, 32, 32, 3)
    assert np.abs(together[1].frames.astype(int) - alone[0].frames).max() <= 1
    assert not np.array_equal(together[0].frames, together[1].frames)


def test_a_new_model_is_explained() -> None:
    parts = {
        type(part): part for part in explain(build_bundle(TOY, CPU), request_of()) if not isinstance(part, Progress)
    }
    tokens, attentions = parts[Tokens], parts[Attentions]
    assert isinstance(tokens, Tokens)
    assert isinstance(attentions, Attentions)
    assert tokens.grid == (5, 2, 2)
    assert [(m.layer, m.part) for m in tokens.modulations] == [(0, "attention")]
    assert [m.kind for _, _, maps in attentions.looks for m in maps] == ["all"] * 3


def test_a_new_model_is_counted() -> None:
    machine = Machine("a machine", 10**10, CPU)
    estimator = Estimator(machine=machine, rates=Rates(lambda kind, dtype: 1e12))
    work = estimator.work(TOY, request_of())
    assert work["denoise"].weights_bytes == bytes_of(TOY.network.build())
    assert estimator.estimate(TOY, request_of()).fits
    assert estimator.work(TOY, request_of(guidance=1))["denoise"].flops == pytest.approx(work["denoise"].flops / 2)


def test_an_entry_without_what_its_network_needs_is_refused() -> None:
    with pytest.raises(WeightsError, match="the entry toy does not name the encoders"):
        build_bundle(replace(TOY, clip=None), CPU)
    with pytest.raises(LookupError, match="no adapter holds the network of a str"):
        build.adapter_for("no numbers")  # type: ignore[arg-type]


# --- nobody else knows


def test_every_network_has_one_adapter() -> None:
    configs = {type(spec.network) for spec in MODELS.values()}
    assert {adapter.config for adapter in build.ADAPTERS} == configs
    assert len(build.ADAPTERS) == len(configs)


def test_networks_and_codecs_are_named_by_their_adapters_and_the_catalog_alone() -> None:
    """Everybody else knows `models.base`, `codecs.base` and `families.adapters.base`."""
    may = {"models", "codecs", "catalog", "training"}
    general = {"models.base", "codecs.base"}
    small = {("runtime/bundle.py", "codecs.taehv")}  # the decoder of previews: one class, of no model
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if path.parts[0] in may or path.parts[:2] == ("families", "adapters"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opensora_demo."):
                name = (node.module or "").removeprefix("opensora_demo.")
                particular = name.split(".")[0] in ("models", "codecs") and name not in general
                if particular and (path.as_posix(), name) not in small:
                    wrong.append(f"{path}: {name}")
    assert not wrong
