"""Adherence by number of steps, and how far the latents are from where many steps lead."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from torch import Tensor

from opensora_demo.catalog import ModelSpec
from opensora_demo.evaluation import plots
from opensora_demo.evaluation.adherence import held_out_prompts, score
from opensora_demo.evaluation.markdown import margin, number, percent, picture, table
from opensora_demo.evaluation.studies.base import Measurement, Scores, Setup, mean
from opensora_demo.families.base import ConditioningFrames, Draw, Family
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.sampling.config import RectifiedFlowConfig, SamplerConfig
from opensora_demo.sampling.step import Step
from opensora_demo.toy.worlds import Scene

if TYPE_CHECKING:
    from opensora_demo.evaluation.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class FineSolution:
    """Many steps of the first sampler whose end its noise fixes."""

    sampler: str
    steps: int
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSteps:
    """`distance`: RMS over latents (of about unit variance) from the fine solution, mean over prompts; None for
    samplers that draw fresh noise."""

    steps: int
    scores: Scores
    distance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSteps:
    sampler: str
    rows: tuple[AtSteps, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStudy(Measurement):
    """All samplers start from the same noise; step counts may exceed what visitors may ask for."""

    name: ClassVar[str] = "steps"
    picture: ClassVar[str] = "steps.png"
    prompts: int
    fine: FineSolution | None
    samplers: tuple[SamplerSteps, ...]

    @classmethod
    def measure(cls, setup: Setup) -> Self:
        samplers, fine_steps = setup.samplers or usual_samplers(setup.spec), setup.counts.fine_steps
        scenes = held_out_prompts(setup.counts.step_prompts, setup.fps)
        fine, solution = None, list[Tensor]()
        if (exact := next((s for s in samplers if deterministic(s)), None)) is not None:
            clips, solution = _made(setup.bundle, scenes, exact, fine_steps)
            fine = FineSolution(sampler=name_of(exact), steps=fine_steps, scores=_scores(setup, scenes, clips))

        def row(sampler: SamplerConfig, steps: int) -> AtSteps:
            clips, latents = _made(setup.bundle, scenes, sampler, steps)
            errors = [float((a - b).square().mean().sqrt()) for a, b in zip(latents, solution, strict=False)]
            distance = mean(errors) if deterministic(sampler) else None
            return AtSteps(steps=steps, scores=_scores(setup, scenes, clips), distance=distance)

        return cls(
            prompts=len(scenes),
            fine=fine,
            samplers=tuple(
                SamplerSteps(sampler=name_of(s), rows=tuple(row(s, steps) for steps in setup.counts.steps))
                for s in samplers
            ),
        )

    def chapter(self, spec: ModelSpec, study: Study, pictures: Sequence[str]) -> list[str]:
        rows = []
        for of in self.samplers:
            rows.append((f"{of.sampler}: all four", *(percent(row.scores.all_right) for row in of.rows)))
            if any(row.distance is not None for row in of.rows):
                rows.append((f"{of.sampler}: distance", *(number(row.distance, 3) for row in of.rows)))
        text = (
            f"Share of clips with all four right, {self.prompts} prompts, uncertain by {margin(self.prompts)} "
            "points (95 %)."
        )
        if (fine := self.fine) is not None:
            text += (
                f" {fine.steps} steps of {fine.sampler}: {percent(fine.scores.all_right)}. Distance: RMS of the "
                "latents, of about unit variance, from there."
            )
        return [
            "## Steps",
            "",
            text,
            "",
            *table(("steps", *(str(row.steps) for row in self.samplers[0].rows)), rows),
            *picture("Adherence and distance over steps", self.picture, pictures),
        ]

    def plot(self, file: Path) -> bool:
        """Adherence and distance from the fine solution over the number of steps."""
        names = short_names([of.sampler for of in self.samplers])
        counts = [row.steps for row in self.samplers[0].rows]
        fine = self.fine if any(row.distance for of in self.samplers for row in of.rows) else None
        with plots.figure(file, (1, 1) if fine else (1,)) as panels:
            left = panels[0]
            share, distance = [], []
            for name, of, colour in zip(names, self.samplers, plots.LINES, strict=False):
                values = [100 * row.scores.all_right for row in of.rows]
                left.plot(counts, values, "o-", color=colour)
                share.append((name if len(names) > 1 else "model", values[-1], colour))
                far = plots.column([row.distance for row in of.rows])
                if fine and np.isfinite(far).any():
                    panels[1].plot(counts, far, "o-", color=colour)
                    distance.append((name, far[-1], colour))
            left.set_title("all four right, % of clips")
            if self.fine:
                best = 100 * self.fine.scores.all_right
                left.axhline(best, color=plots.GREY, linestyle="--", linewidth=1.2)
                share.append((f"{self.fine.steps} steps", best, plots.GREY))
            plots.not_too_close(left)
            left.set_ylim(left.get_ylim()[0], min(left.get_ylim()[1], 102))
            plots.label_ends(left, share)
            if fine:
                plots.logarithmic(panels[1])
                panels[1].set_title(f"RMS distance of latents from {fine.steps} steps")
                if len(distance) > 1:
                    plots.label_ends(panels[1], distance)
            for axes in panels:
                axes.set_xlabel("steps")
                plots.ticks(axes, counts)
        return True


def deterministic(sampler: SamplerConfig) -> bool:
    """Does the noise a run starts from fix its end? Diffusion that draws fresh noise has no solution to converge to."""
    if isinstance(sampler, RectifiedFlowConfig):
        return True
    return sampler.method == "dpm-solver++" or (sampler.method == "ddim" and sampler.eta == 0)


def name_of(sampler: SamplerConfig) -> str:
    """Its kind, its order or method, and whatever else differs from the kind's defaults."""
    own, usual = asdict(sampler), asdict(type(sampler)())
    kind, main = ("rectified flow", "order") if isinstance(sampler, RectifiedFlowConfig) else ("IDDPM", "method")
    first = f"order {own.pop(main)}" if main == "order" else str(own.pop(main))
    rest = (f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in own.items() if v != usual[k])
    return ", ".join((kind, first, *rest))


def short_names(names: Sequence[str]) -> list[str]:
    """What tells samplers apart: their names without the parts that all of them share."""
    parts = [name.split(", ") for name in names]
    shared = set(parts[0]).intersection(*parts[1:]) if len(parts) > 1 else set()
    return [", ".join(p for p in some if p not in shared) or ", ".join(some[:2]) for some in parts]


def usual_samplers(spec: ModelSpec) -> tuple[SamplerConfig, ...]:
    """The model's own sampler, then the others of its kind that its weights can be sampled with."""
    own = spec.sampler
    if isinstance(own, RectifiedFlowConfig):
        return own, replace(own, order=1 if own.order == 2 else 2)
    others = [replace(own, method=m) for m in ("ddpm", "ddim", "dpm-solver++") if m != own.method]
    return own, *others


def with_sampler(bundle: ModelBundle, sampler: SamplerConfig) -> ModelBundle:
    """The same loaded weights, sampled otherwise."""
    family: Any = copy.copy(bundle.family)
    family.sampler = sampler
    return replace(bundle, spec=replace(bundle.spec, sampler=sampler), family=family)


class _Recorder:
    """A family that keeps the latents (rows, c, t, h, w) of its last step."""

    def __init__(self, family: Family[Any]) -> None:
        self.family, self.network = family, family.network
        self.latents: Tensor | None = None

    @property
    def threads(self) -> int:
        return self.family.threads

    def condition(self, request: GenerationRequest, given: ConditioningFrames, size: tuple[int, int, int]) -> Any:
        return self.family.condition(request, given, size)

    def steps(self, noise: Tensor, condition: Any, request: GenerationRequest, draw: Draw) -> Iterator[Step]:
        for step in self.family.steps(noise, condition, request, draw):
            self.latents = step.x
            yield step


def run_with_latents(bundle: ModelBundle, request: GenerationRequest) -> tuple[Frames, Tensor]:
    """The clip of a request of one scale, and the latents (1, c, t, h, w) it was decoded from."""
    recorder: Any = _Recorder(bundle.family)
    clip = run(replace(bundle, family=recorder), request).clips[0].frames
    assert recorder.latents is not None
    return clip, recorder.latents


def _made(
    bundle: ModelBundle, scenes: Sequence[tuple[Scene, str]], sampler: SamplerConfig, steps: int
) -> tuple[list[Frames], list[Tensor]]:
    """A clip of each prompt, and its latents."""
    limits = replace(bundle.spec.limits, steps=replace(bundle.spec.limits.steps, low=1, high=1000))
    sampled = with_sampler(bundle, sampler)
    clips, latents = [], []
    for index, (scene, prompt) in enumerate(scenes):
        raw = {"prompt": prompt, "fps": scene.fps, "seed": index, "steps": steps}
        clip, latent = run_with_latents(sampled, parse_request(raw, model_id=bundle.spec.id, limits=limits))
        clips.append(clip)
        latents.append(latent)
    return clips, latents


def _scores(setup: Setup, scenes: Sequence[tuple[Scene, str]], clips: Sequence[Frames]) -> Scores:
    return Scores.of(score(setup.reader, [(scene, clip) for (scene, _), clip in zip(scenes, clips, strict=True)]))
