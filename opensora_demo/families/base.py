"""What every family offers the pipeline: conditions from a request, and the steps of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.errors import WeightsError
from opensora_demo.families.adapters.base import Adapter
from opensora_demo.families.branches import pairs_of
from opensora_demo.messages import message
from opensora_demo.nn.peers import Peers
from opensora_demo.nn.threads import one_thread
from opensora_demo.request.curve import Curve
from opensora_demo.request.events import Stage
from opensora_demo.request.limits import Rule
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import VideoShape
from opensora_demo.sampling.guidance import PROMPT, SKIP, WEAK, Guidance
from opensora_demo.sampling.step import Step, Turn
from opensora_demo.sampling.step_cache import THRESHOLDS, StepCache
from opensora_demo.text.clip import PooledText
from opensora_demo.text.t5 import TextFeatures

TokenEncoder = Callable[[list[str]], TextFeatures]
PooledEncoder = Callable[[list[str]], PooledText]
PrepareStage = Callable[[Stage], None]
"""Puts what a stage needs on the device; called before each."""


def no_offload(stage: Stage) -> None:
    """For models whose parts are all where they compute."""


Draw = Callable[[], Tensor]
"""The next standard normal draw (1, c, t, h, w) of the run, the same for all clips compared."""
Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """What a family is built with beside its network: its version's encoders, and what puts parts on the device."""

    text: TokenEncoder | None = None
    pooled: PooledEncoder | None = None
    prepare: PrepareStage = no_offload


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditioningFrames:
    """Latents (c, n, h, w) of the frames a visitor gave, or the scene before, which the clip begins and ends with: n is
    1 for a picture. `first` is (rows, c, n, h, w) where each clip of a comparison goes on from its own. The codec made
    them, so their scale is the network's."""

    first: Tensor | None = None
    last: Tensor | None = None

    def __bool__(self) -> bool:
        return self.first is not None or self.last is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the network is told, and how its branches are weighed. Each family adds its own.

    times: of a flow's steps and its end, from 1 to 0 (a diffusion sampler has its own). prompt: what the encoder of
    tokens read, with the words that a family adds. unknown: words of it that the encoder does not know; cut_tokens:
    tokens beyond its length. weaker: the same for the weaker model of autoguidance, where a rule asks for it. From the
    step of a `turn` on, what `after` says holds instead. cache: what the run remembers of its steps, where some are
    not computed.
    """

    guidance: Guidance
    times: tuple[float, ...] = ()
    prompt: str = ""
    unknown: tuple[str, ...] = ()
    cut_tokens: int = 0
    weaker: Conditioning | None = None
    turn: Turn | None = None
    after: Self | None = None
    cache: StepCache | None = None

    def at(self, step: int) -> Self:
        """What holds at a step."""
        return self if self.turn is None or self.after is None or step < self.turn.index else self.after


def lacking(spec: ModelSpec) -> WeightsError:
    """For an entry whose network needs what the entry does not name."""
    return WeightsError(message("weights.entry", model=spec.id))


class RunSettings(Protocol):
    """What of a request decides how often its network is called: a `GenerationRequest`, or less."""

    @property
    def shape(self) -> VideoShape: ...
    @property
    def steps(self) -> int: ...
    @property
    def columns(self) -> tuple[tuple[float, Rule], ...]: ...
    @property
    def image_guidance(self) -> float: ...
    @property
    def curve(self) -> Curve: ...


C = TypeVar("C", bound=Conditioning)


class Family(ABC, Generic[C]):
    """The conventions of a version around its network. `weaker` is another model on the same latents that
    autoguidance leads away from (`ModelSpec.weaker`)."""

    def __init__(
        self, adapter: Adapter[Any, C], *, max_batch: int | None = None, prepare: PrepareStage = no_offload
    ) -> None:
        """`max_batch` bounds how many (clip, branch) pairs go through the network at once; None takes them all."""
        self.adapter = adapter
        self.max_batch = max_batch
        self.prepare = prepare
        self.weaker: Family[Any] | None = None
        self.peers: Peers | None = None  # processes that share the branches of guidance
        self.splits_batches = False  # among threads that compute alone: faster for small networks on a CPU
        self.one_thread = False  # for batches too small to be split, where that is faster (`runtime.fitted`)

    @property
    def network(self) -> nn.Module:
        return self.adapter.network

    @property
    def threads(self) -> int:
        """In how many parts a batch is computed side by side, where it is large enough."""
        return torch.get_num_threads() if self.splits_batches else 1

    @property
    def carries_latents(self) -> bool:
        """Whether a scene begins with the last latents of the one before as they are, not encoded from its frames."""
        return False

    @property
    @abstractmethod
    def time_scale(self) -> float:
        """What the network calls the flow time 1."""

    @abstractmethod
    def times(self, run: RunSettings, size: Grid) -> tuple[float, ...]:
        """Times of a flow's steps and its end, for latents of `size` (t, h, w); empty for diffusion."""

    @abstractmethod
    def guidance(self, run: RunSettings, given: bool, size: Grid, times: tuple[float, ...]) -> Guidance:
        """How the branches are weighed; `given` says whether there are given frames."""

    @abstractmethod
    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: Grid) -> C:
        """Conditions for latents of `size` (t, h, w); `steps` takes them back."""

    @abstractmethod
    def steps(self, noise: Tensor, condition: C, request: GenerationRequest, draw: Draw) -> Iterator[Step]:
        """Sample from noise (rows, c, t, h, w), one Step at a time, as many rows as the request has columns."""

    def call(
        self, x: Tensor, time: float, condition: C, rows: list[int], branches: list[int], x_mask: Tensor | None = None
    ) -> Tensor:
        """The network's own output for a batch of (row of x, branch) pairs, all of the branch `SKIP` or none; `time` as
        the network counts it, x_mask (rows, t) False for frames that are given."""
        threads = torch.get_num_threads()
        if self.one_thread and threads > 1 and len(rows) < 2 * threads:
            with one_thread():
                return self._call(x, time, condition, rows, branches, x_mask)
        return self._call(x, time, condition, rows, branches, x_mask)

    def _call(
        self, x: Tensor, time: float, condition: C, rows: list[int], branches: list[int], x_mask: Tensor | None
    ) -> Tensor:
        times = torch.full((len(rows),), time, device=x.device)
        flags = None if x_mask is None else x_mask[rows]
        if SKIP in branches:
            with self.adapter.without_middle():
                return self.adapter.call(x[rows], times, condition, rows, [PROMPT] * len(rows), flags)
        return self.adapter.call(x[rows], times, condition, rows, branches, flags)

    @abstractmethod
    def own_predictions(
        self, x: Tensor, t: float, condition: C, wanted: Tensor, x_mask: Tensor | None = None, *, shared: bool = False
    ) -> list[Tensor | None]:
        """What this model's network says of x (rows, c, t, h, w) for each branch that `wanted` (rows, branches) asks
        for: dx/dt at a flow's time t, or noise (and variance values, on more channels) at a diffusion's timestep t."""

    def predictions(
        self, x: Tensor, t: float, condition: C, wanted: Tensor, x_mask: Tensor | None = None, *, shared: bool = False
    ) -> list[Tensor | None]:
        """The same, with the branch that the weaker model predicts."""
        own = self.own_predictions(x, t, condition, wanted[:, :WEAK], x_mask, shared=shared)
        if wanted.shape[1] > WEAK:
            if self.weaker is None or condition.weaker is None:
                raise ValueError("autoguidance needs a weaker model")
            prompt = wanted[:, WEAK:]
            own += self.weaker.own_predictions(x, t, condition.weaker, prompt, x_mask, shared=shared)
        return own

    def cached_predictions(
        self,
        x: Tensor,
        t: float,
        index: int,
        condition: C,
        wanted: Tensor,
        x_mask: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> list[Tensor | None]:
        """The same at step `index`, or those of the step before, where the run takes them."""

        def compute(asked: Tensor) -> list[Tensor | None]:
            return self.predictions(x, t, condition, asked, x_mask, shared=shared)

        return compute(wanted) if condition.cache is None else condition.cache.predict(x, index, wanted, compute)

    @staticmethod
    def step_cache(request: GenerationRequest) -> StepCache | None:
        """A fresh one, where the request wants one."""
        threshold = THRESHOLDS[request.step_cache]
        return StepCache(threshold, request.steps) if threshold else None

    def weaker_condition(
        self, request: GenerationRequest, given: ConditioningFrames, size: Grid
    ) -> Conditioning | None:
        """What the weaker model is told, where a rule of the request asks for it."""
        if self.weaker is None or "autoguidance" not in request.rules:
            return None
        condition: Conditioning = self.weaker.condition(request, given, size)
        return condition

    def wanted(self, guidance: Guidance, step: int) -> Tensor:
        """Boolean (rows, branches): what is evaluated at a step."""
        return guidance.needed(step)

    def calls(self, run: RunSettings, given: bool, size: Grid, *, apart: bool = False) -> tuple[int, ...]:
        """How many (clip, branch) pairs go through the network at each step of a run; a layer left out saves nothing
        here. Clips of a comparison that do not begin alike, each going on from its own, are `apart`."""
        return tuple(own for own, _ in self._pairs(run, given, size, apart))

    def weaker_calls(self, run: RunSettings, given: bool, size: Grid, *, apart: bool = False) -> tuple[int, ...]:
        """The same of the weaker model's network."""
        return tuple(weaker for _, weaker in self._pairs(run, given, size, apart))

    def _pairs(self, run: RunSettings, given: bool, size: Grid, apart: bool) -> Iterator[tuple[int, int]]:
        guidance = self.guidance(run, given, size, self.times(run, size))
        shared = len(run.columns) > 1 and not apart
        for step in range(run.steps):
            pairs = pairs_of(self.wanted(guidance, step), shared=shared and step == 0)
            weaker = sum(branch == WEAK for _, branch in pairs)
            yield len(pairs) - weaker, weaker
