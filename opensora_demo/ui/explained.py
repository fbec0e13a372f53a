"""Parts of an explained run -> the JSON that explain.js draws, and the sentences that need this run's numbers. Pure.

Arrays go as base64: pictures as bytes, attention weights as 16-bit fractions, the two estimates that guidance mixes as
16-bit numbers that may leave the range of a picture.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opensora_demo.catalog import ModelSpec
from opensora_demo.explain.attention import Map
from opensora_demo.explain.coding import Coding
from opensora_demo.explain.plane import Pull
from opensora_demo.explain.run import Attentions, Flow, Guided, Part, Progress, Tokens
from opensora_demo.media import jpeg_strip
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.types import Frames, GenerationRequest
from opensora_demo.ui.runs import Loading, Waiting

View = dict[str, Any]
SMALL_PX = 24  # latents are sent with at most so many places a side
CLIP_PX = 64  # frames of the clip
MIX_UNIT = 4096  # of the estimates that guidance mixes: 1.0, white, in 16 bits
MOST_SCALE = 8.0  # of the slider of guidance scales


def _b64(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _round(values: Any, digits: int = 4) -> Any:
    """Nested lists of a tensor, rounded."""
    return np.round(values.double().numpy(), digits).tolist()


def _thin(frames: Any, side: int) -> Any:
    """(t, h, w, 3) -> the same with every k-th row and column, so that no side is longer than `side`."""
    step = -(-max(frames.shape[1:3]) // side)
    return frames[:, ::step, ::step]


def pixels(frames: Frames) -> View:
    """A small picture of latents, place by place: {n, h, w, rgb}."""
    small = _thin(frames, SMALL_PX)
    return {"n": small.shape[0], "h": small.shape[1], "w": small.shape[2], "rgb": _b64(small)}


def strip(frames: Frames) -> View:
    """Frames of the clip side by side: {n, h, w, uri}."""
    small = _thin(frames, CLIP_PX)
    return {"n": small.shape[0], "h": small.shape[1], "w": small.shape[2], "uri": jpeg_strip(small, CLIP_PX)}


def mixable(rgb: NDArray[np.float32]) -> str:
    """A picture (t, h, w, 3) in [-1, 1] and beyond: a mix of two of them is the picture of the mix."""
    return _b64((_thin(rgb, SMALL_PX) * MIX_UNIT).round().clip(-32768, 32767).astype("<i2"))


def block_name(layer: int, block: str) -> str:
    return f"{layer + 1} {block}".strip()


def tokens_view(part: Tokens) -> View:
    c, t, h, w = part.latent
    pt, ph, pw = part.patch
    count = part.grid[0] * part.grid[1] * part.grid[2]
    return {
        "facts": [
            f"Here {t} x {h} x {w} places of {c} channels become {count} tokens: each patch of {pt} x {ph} x {pw} "
            f"is {part.values} numbers, embedded in {part.width} channels."
        ],
        "grid": part.grid,
        "times": [round(time, 4) for time in part.times],
        "curves": [
            {
                "name": block_name(m.layer, m.block),
                "layer": m.layer,
                "dashed": "time" in (m.block, m.part),
                "part": "attention" if m.part in ("space", "time") else m.part,
                "of": m.part if m.part in ("space", "time") else "",
                "shift": _round(m.shift.T),
                "scale": _round(m.scale.T),
                "gate": _round(m.gate.T),
            }
            for m in part.modulations
        ],
    }


def _fractions(found: Map) -> View:
    return {
        "layer": found.layer,
        "kind": found.kind,
        "w": _b64((found.weights.numpy() * 65535).round().astype("<u2")),
    }


def attention_view(part: Attentions, spec: ModelSpec) -> View:
    if not part.looks:
        count = part.grid[0] * part.grid[1] * part.grid[2]
        return {"missing": f"{spec.title} has {count} tokens: too many pairs of them to draw here."}
    kinds = {found.kind for found in part.looks[0][2]}
    match spec.text_mode:
        case "pooled vector":
            facts = ["Here the whole prompt is one vector, added to the time: there are no words to attend to."]
        case "token concatenation":
            facts = ["Here words and patches stand in one sequence: the weights of both together add up to one."]
        case "cross-attention":
            facts = ["Here words are read by cross-attention, whose weights add up to one by themselves."]
    if kinds >= {"space", "time"}:
        facts.append("Patches attend within their frame, then to their own place in every frame.")
    return {
        "facts": facts,
        "grid": part.grid,
        "words": list(part.words),
        "heads": part.heads,
        "shared": spec.text_mode == "token concatenation",
        "looks": [
            {"step": i + 1, "t": round(t, 3), "maps": [_fractions(m) for m in maps]} for i, t, maps in part.looks
        ],
    }


def causality(part: Coding) -> str:
    """What the changed clips showed."""
    if not part.changes:
        return "One picture has no later frames to change."
    before, after = 0.0, 0.0
    for change in part.changes:
        early = [x for (_, end), x in zip(part.spans, change.latents, strict=True) if end <= change.frame]
        before = max(before, *early, 0.0)
        after = max(after, *change.latents)
    if before < 1e-4 * after:
        return "No latent before the change moves: nothing looks ahead."
    if part.causal:
        return (
            f"Latents before the change move by up to {before:.2g}: convolutions are causal, but norms pool over time."
        )
    return f"Latents before the change move too, by up to {before:.2g}: this codec looks both ways."


def coding_view(part: Coding) -> View:
    sizes = {stage.name: stage.size for stage in part.stages}
    values = {name: int(np.prod(size)) for name, size in sizes.items()}
    ratio = values["clip"] / values["latents"]
    size = f"Here {sizes['clip'][1]} frames become {sizes['latents'][1]} latent frames, 1 number for every {ratio:.1f}."
    back = f"The clip just made, coded once more, comes back at {part.psnr:.1f} dB."
    return {
        "facts": [size, back, causality(part)],
        "stages": [
            {
                "name": stage.name,
                "size": " x ".join(map(str, stage.size)),
                "values": values[stage.name],
                "picture": (strip if stage.name in ("clip", "decoded") else pixels)(stage.picture),
            }
            for stage in part.stages
        ],
        "spans": part.spans,
        "changes": [{"frame": c.frame, "latents": [round(x, 4) for x in c.latents]} for c in part.changes],
        "shown": strip(part.stages[0].picture[[end - 1 for _, end in part.spans]]),
    }


def flow_view(part: Flow, spec: ModelSpec) -> View:
    path = part.path
    longer = f"Its way is {path.length:.2f} times as long as the straight line."
    if isinstance(spec.sampler, IddpmConfig):
        facts = ["This model diffuses (IDDPM): its way bends by design and may be jolted by fresh noise.", longer]
    else:
        facts = [longer, f"The plane holds {100 * path.captured:.0f} % of how far it strays."]
    return {
        "facts": facts,
        "times": [round(t, 4) for t in part.times],
        "points": _round(path.points),
        "estimates": _round(path.estimates),
        "noisy": [pixels(p) for p in part.noisy],
        "clean": [pixels(p) for p in part.clean],
    }


def guidance_view(part: Guided, spec: ModelSpec) -> View:
    if not part.pulls:
        return {"missing": "This model is told the scale: it makes one prediction, and there are no two to mix."}
    first, last = part.pulls[0], part.pulls[-1]
    facts = [f"Cosine of u and c: {first.cosine:.3f} at the first step, {last.cosine:.3f} at the last."]
    if gap(first) > 1.5 * gap(last):
        facts.append("They differ most near the noise: there a scale decides the most.")
    n, h, w, _ = _thin(part.pictures[0][0], SMALL_PX).shape
    most = min(spec.limits.guidance.high, MOST_SCALE)
    return {
        "facts": facts,
        "scale": min(part.scale, most),
        "most": most,
        "n": n,
        "h": h,
        "w": w,
        "unit": MIX_UNIT,
        "pulls": [
            {
                "t": round(pull.t, 4),
                "u": round(pull.null_norm, 4),
                "c": [round(x, 4) for x in pull.prompt],
                "norm": round(pull.prompt_norm, 4),
                "cosine": round(pull.cosine, 4),
                "null": mixable(null),
                "prompt": mixable(prompt),
            }
            for pull, (null, prompt) in zip(part.pulls, part.pictures, strict=True)
        ],
    }


def gap(pull: Pull) -> float:
    """Length of c - u, in root mean squares."""
    return float(np.hypot(pull.prompt[0] - pull.null_norm, pull.prompt[1]))


class ExplainView:
    """Folds the parts of one run into the value of the component."""

    def __init__(self, run: int, request: GenerationRequest, spec: ModelSpec) -> None:
        self._spec = spec
        self._view: View = {
            "run": run,
            "phase": "working",
            "text": "Loading the model",
            "share": 0.0,
            "prompt": request.prompt,
            "model": spec.title,
            "seed": request.seed,
            "figures": {},
        }

    def value(self) -> View:
        return {**self._view, "figures": dict(self._view["figures"])}

    def add(self, event: Loading | Waiting | Part) -> None:
        """Take in one event; the next `value` shows it."""
        figures = self._view["figures"]
        match event:
            case Loading():
                pass
            case Waiting():
                self._view["text"] = "Waiting for another run to finish"
            case Progress(done=done, total=total, text=text):
                self._view |= {"text": text, "share": round(done / total, 3)}
            case Tokens():
                figures["tokens"] = tokens_view(event)
            case Attentions():
                figures["attention"] = attention_view(event, self._spec)
            case Coding():
                figures["coding"] = coding_view(event)
            case Flow():
                figures["flow"] = flow_view(event, self._spec)
            case Guided():
                figures["guidance"] = guidance_view(event, self._spec)

    def end(self, phase: str, text: str) -> View:
        self._view |= {"phase": phase, "text": text, "share": 1.0 if phase == "done" else self._view["share"]}
        return self.value()
