"""Parts of an explained run -> the JSON of the figures, and the sentences that need this run's numbers. Pure.

Arrays go as base64: pictures as bytes, attention weights as 16-bit fractions, the two estimates that guidance mixes as
16-bit numbers that may leave the range of a picture.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.explain.attention import Kind, Map
from opensora_demo.explain.beginning import Beginning
from opensora_demo.explain.call import Channels, Halves, Masking
from opensora_demo.explain.causal import Causal
from opensora_demo.explain.coding import Coding
from opensora_demo.explain.modulation import Modulation
from opensora_demo.explain.plane import Pull
from opensora_demo.explain.run import Attentions, Flow, Guided, Part, Progress, Tokens
from opensora_demo.explain.scaling import Scaled
from opensora_demo.messages import Message, in_a_row, message
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.service.engine import Loading, Waiting
from opensora_demo.ui.values.articles import (
    Axis,
    BlockPart,
    CausalValue,
    ChannelsValue,
    GatesValue,
    HalvesValue,
    MaskValue,
    MissingValue,
    ScaledValue,
    causal_value,
    channels_value,
    gates_value,
    halves_value,
    mask_value,
    place_of,
    scaled_value,
)
from opensora_demo.ui.values.common import MessageValue, said
from opensora_demo.ui.values.pictures import (
    MIX_UNIT,
    SMALL_PX,
    PixelsValue,
    StripValue,
    b64,
    mixable,
    pixels,
    strip,
    thin,
)

MOST_SCALE = 8.0  # of the slider of guidance scales

Size = tuple[int, int, int]


class VectorValue(TypedDict):
    """A vector of adaLN over the times of its figure: root mean square over channels, of itself and of its change since
    t = 1."""

    size: list[float]
    change: list[float]


class CurveValue(TypedDict):
    """What adaLN does in one part of one block; `kind` tells blocks, or parts, over space and over time apart."""

    layer: int
    kind: Axis | None
    part: BlockPart
    shift: VectorValue
    scale: VectorValue
    gate: VectorValue


class TokensValue(TypedDict):
    """`grid`: tokens along time, height and width; `times`: of the curves, from 1 to 0."""

    fact: MessageValue
    grid: Size
    times: list[float]
    curves: list[CurveValue]


class AttentionMap(TypedDict):
    """Weights as 16-bit fractions in base64, rows of sum one. By kind: "space" (t, heads, s, s), "time" (s, heads, t,
    t), "all" (heads, t s, t s), "text" (heads, t s, words)."""

    layer: int
    kind: Kind
    weights: str


class AttentionLook(TypedDict):
    """All maps of one step."""

    step: int
    noise_level: float
    maps: list[AttentionMap]


class AttentionValue(TypedDict):
    """`focus`: frame, row and column (from 0) of a patch on the object. `shared`: words and patches stand in one
    sequence, and their weights add up to one together."""

    fact: MessageValue
    grid: Size
    focus: Size
    words: list[str]
    heads: int
    shared: bool
    looks: list[AttentionLook]


class CodingStage(TypedDict):
    """The clip at one place of its way through the codec; `size` is (channels, frames, height, width).

    `name` is "clip", "latents", "decoded", or what a codec calls its own stages."""

    name: str
    size: list[int]
    values: int
    picture: PixelsValue | StripValue


class ChangeValue(TypedDict):
    """How far each latent frame moves, RMS, when the clip is turned to its negative from `frame` (from 0) on, and what
    the stages behind the clip then hold, by their names."""

    frame: int
    latents: list[float]
    pictures: dict[str, PixelsValue | StripValue]


class CodingValue(TypedDict):
    """`spans`: first frame and end of every latent frame; `shown`: the clip, a frame for each latent frame."""

    fact: MessageValue
    stages: list[CodingStage]
    spans: list[tuple[int, int]]
    changes: list[ChangeValue]
    shown: StripValue


class FlowValue(TypedDict):
    """`points` (one more than steps) and `estimates` on the plane, noise at (0, 0) and clip at (1, 0); `noisy` and
    `clean`: pictures of what each step was given, and of the clip it expected."""

    fact: MessageValue
    times: list[float]
    points: list[tuple[float, float]]
    estimates: list[tuple[float, float]]
    noisy: list[PixelsValue]
    clean: list[PixelsValue]


class PullValue(TypedDict):
    """Both predictions of a step on the plane they span: the null one lies along its first axis, `null_norm` long.
    Pictures are frames x height x width x 3 numbers of 16 bits in base64, `unit` for white."""

    noise_level: float
    null_norm: float
    prompt: tuple[float, float]
    prompt_norm: float
    cosine: float
    null_picture: str
    prompt_picture: str


class GuidanceValue(TypedDict):
    """`scale` of the run, `most` of the slider; `start` is the step (from 0) at which both predictions differ most."""

    fact: MessageValue
    start: int
    scale: float
    most: float
    frames: int
    height: int
    width: int
    unit: int
    pulls: list[PullValue]


class FiguresValue(TypedDict, total=False):
    """The figures that are there by now."""

    tokens: TokensValue
    attention: AttentionValue | MissingValue
    coding: CodingValue
    flow: FlowValue
    guidance: GuidanceValue | MissingValue
    halves: HalvesValue | MissingValue
    channels: ChannelsValue
    gates: GatesValue | MissingValue
    mask: MaskValue
    causal: CausalValue
    scaled: ScaledValue


class ExplainValue(TypedDict):
    """One run that is looked into; `share` of its work is done, 0..1. `stored`: it was made with the demo, and not for
    this visitor."""

    run: int
    phase: Literal["working", "done", "stopped", "failed"]
    text: MessageValue
    share: float
    prompt: str
    model: str
    model_id: str
    seed: int
    stored: NotRequired[bool]
    figures: FiguresValue


def _round(values: Any, digits: int = 4) -> Any:
    """Nested lists of a tensor, rounded."""
    return np.round(values.double().numpy(), digits).tolist()


def _vector(modulated: Any) -> VectorValue:
    """(times, 2): the size and the change of one vector."""
    size, change = _round(modulated.T)
    return {"size": size, "change": change}


def tokens_value(part: Tokens) -> TokensValue:
    c, t, h, w = part.latent
    pt, ph, pw = part.patch
    fact = message(
        "note.tokens",
        t=t,
        h=h,
        w=w,
        channels=c,
        tokens=int(np.prod(part.grid)),
        pt=pt,
        ph=ph,
        pw=pw,
        values=part.values,
        width=part.width,
    )
    return {
        "fact": said(fact),
        "grid": part.grid,
        "times": [round(time, 4) for time in part.times],
        "curves": [curve(m) for m in part.modulations],
    }


def curve(m: Modulation) -> CurveValue:
    kind, part = place_of(m)
    vectors = {"shift": _vector(m.shift), "scale": _vector(m.scale), "gate": _vector(m.gate)}
    return {"layer": m.layer, "kind": kind, "part": part, **vectors}  # type: ignore[typeddict-item]


def _map(found: Map) -> AttentionMap:
    fractions = (found.weights.numpy() * 65535).round().astype("<u2")
    return {"layer": found.layer, "kind": found.kind, "weights": b64(fractions)}


def attention_value(part: Attentions, spec: ModelSpec) -> AttentionValue | MissingValue:
    if not part.looks:
        return {"missing": said(message("note.too_many_tokens", model=spec.title, tokens=int(np.prod(part.grid))))}
    kinds = {found.kind for found in part.looks[0][2]}
    match spec.text_mode:
        case "pooled vector" | "class label":
            facts = [message("note.text.pooled")]
        case "token concatenation":
            facts = [message("note.text.joint")]
        case "cross-attention":
            facts = [message("note.text.cross")]
        case "unknown":
            raise ValueError(spec.id)  # nothing of it is here to be looked into
    if kinds >= {"space", "time"}:
        facts.append(message("note.attention.factored"))
    return {
        "fact": said(in_a_row(*facts)),
        "grid": part.grid,
        "focus": part.focus,
        "words": list(part.words),
        "heads": part.heads,
        "shared": spec.text_mode == "token concatenation",
        "looks": [
            {"step": i + 1, "noise_level": round(t, 3), "maps": [_map(m) for m in maps]} for i, t, maps in part.looks
        ],
    }


def _picture(stage: str, frames: Frames) -> PixelsValue | StripValue:
    return (strip if stage in ("clip", "decoded") else pixels)(frames)


def causality(part: Coding) -> Message:
    """What the changed clips showed."""
    if not part.changes:
        return message("note.coding.one")
    before, after = 0.0, 0.0
    for change in part.changes:
        early = [x for (_, end), x in zip(part.spans, change.latents, strict=True) if end <= change.frame]
        before = max(before, *early, 0.0)
        after = max(after, *change.latents)
    if before < 1e-4 * after:
        return message("note.coding.causal")
    moved = float(f"{before:.2g}")
    return message("note.coding.norms" if part.causal else "note.coding.both_ways", most=moved)


def coding_value(part: Coding) -> CodingValue:
    sizes = {stage.name: stage.size for stage in part.stages}
    values = {name: int(np.prod(size)) for name, size in sizes.items()}
    ratio = round(values["clip"] / values["latents"], 1)
    size = message("note.coding.size", frames=sizes["clip"][1], latent=sizes["latents"][1], ratio=ratio)
    return {
        "fact": said(in_a_row(size, message("note.coding.back", psnr=round(part.psnr, 1)), causality(part))),
        "stages": [
            {
                "name": stage.name,
                "size": list(stage.size),
                "values": values[stage.name],
                "picture": _picture(stage.name, stage.picture),
            }
            for stage in part.stages
        ],
        "spans": list(part.spans),
        "changes": [
            {
                "frame": change.frame,
                "latents": [round(x, 4) for x in change.latents],
                "pictures": {name: _picture(name, frames) for name, frames in change.pictures.items()},
            }
            for change in part.changes
        ],
        "shown": strip(part.stages[0].picture[[end - 1 for _, end in part.spans]]),
    }


def flow_value(part: Flow, spec: ModelSpec) -> FlowValue:
    path = part.path
    facts = [message("note.flow.diffusion")] if isinstance(spec.sampler, IddpmConfig) else []
    facts.append(message("note.flow.longer", times=round(path.length, 2)))
    facts.append(message("note.flow.plane", percent=round(100 * path.captured)))
    return {
        "fact": said(in_a_row(*facts)),
        "times": [round(t, 4) for t in part.times],
        "points": _round(path.points),
        "estimates": _round(path.estimates),
        "noisy": [pixels(p) for p in part.noisy],
        "clean": [pixels(p) for p in part.clean],
    }


def guidance_value(part: Guided, spec: ModelSpec) -> GuidanceValue | MissingValue:
    if not part.pulls:
        return {"missing": said(message("note.guidance.none"))}
    first, last = part.pulls[0], part.pulls[-1]
    facts = [message("note.guidance.cosine", first=round(first.cosine, 3), last=round(last.cosine, 3))]
    if gap(first) > 1.5 * gap(last):
        facts.append(message("note.guidance.noise"))
    frames, height, width, _ = thin(part.pictures[0][0], SMALL_PX).shape
    most = min(spec.limits.guidance.high, MOST_SCALE)
    return {
        "fact": said(in_a_row(*facts)),
        "start": max(range(len(part.pulls)), key=lambda k: gap(part.pulls[k])),
        "scale": min(part.scale, most),
        "most": most,
        "frames": frames,
        "height": height,
        "width": width,
        "unit": MIX_UNIT,
        "pulls": [
            {
                "noise_level": round(pull.t, 4),
                "null_norm": round(pull.null_norm, 4),
                "prompt": (round(pull.prompt[0], 4), round(pull.prompt[1], 4)),
                "prompt_norm": round(pull.prompt_norm, 4),
                "cosine": round(pull.cosine, 4),
                "null_picture": mixable(null),
                "prompt_picture": mixable(prompt),
            }
            for pull, (null, prompt) in zip(part.pulls, part.pictures, strict=True)
        ],
    }


def gap(pull: Pull) -> float:
    """Length of c - u, in root mean squares."""
    return float(np.hypot(pull.prompt[0] - pull.null_norm, pull.prompt[1]))


class AskedValue(TypedDict):
    """What the page's form would explain now: its prompt and the id of its model."""

    prompt: str
    model: str


class ExplainView:
    """Folds the parts of one run into the value of the component."""

    def __init__(self, run: int, request: GenerationRequest, spec: ModelSpec) -> None:
        self._spec = spec
        self._value: ExplainValue = {
            "run": run,
            "phase": "working",
            "text": said(message("run.loading")),
            "share": 0.0,
            "prompt": request.prompt,
            "model": spec.title,
            "model_id": spec.id,
            "seed": request.seed,
            "figures": {},
        }

    def value(self) -> ExplainValue:
        return {**self._value, "figures": self._value["figures"].copy()}

    def add(self, event: Loading | Waiting | Part) -> None:
        """Take in one event; the next `value` shows it."""
        figures = self._value["figures"]
        match event:
            case Loading():
                pass
            case Waiting():
                self._value["text"] = said(event.text)
            case Progress(done=done, total=total, text=text):
                self._value["text"], self._value["share"] = said(text), round(done / total, 3)
            case Tokens():
                figures["tokens"] = tokens_value(event)
            case Attentions():
                figures["attention"] = attention_value(event, self._spec)
            case Coding():
                figures["coding"] = coding_value(event)
            case Flow():
                figures["flow"] = flow_value(event, self._spec)
            case Guided():
                figures["guidance"] = guidance_value(event, self._spec)
            case _:
                self._add_of_articles(event)

    def _add_of_articles(self, event: Halves | Channels | Beginning | Masking | Causal | Scaled) -> None:
        figures = self._value["figures"]
        match event:
            case Halves():
                figures["halves"] = halves_value(event)
            case Channels():
                figures["channels"] = channels_value(event, self._spec)
            case Beginning():
                figures["gates"] = gates_value(event)
            case Masking():
                figures["mask"] = mask_value(event, self._spec)
            case Causal():
                figures["causal"] = causal_value(event)
            case Scaled():
                figures["scaled"] = scaled_value(event)

    def end(self, phase: Literal["done", "stopped", "failed"], text: Message) -> ExplainValue:
        """The last value, however the run ended."""
        self._value["phase"], self._value["text"] = phase, said(text)
        if phase == "done":
            self._value["share"] = 1.0
        return self.value()
