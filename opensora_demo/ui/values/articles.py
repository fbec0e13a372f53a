"""Figures of what the articles describe, as JSON, and the sentences that need this run's numbers. Pure.

Each figure's text (`messages`, ui.explain.*) names its article by its title.
"""

from __future__ import annotations

import math
from typing import Literal, TypedDict

import numpy as np

from opensora_demo.catalog import ModelSpec
from opensora_demo.explain.beginning import Beginning
from opensora_demo.explain.call import Channels, Halves, Masking, Use
from opensora_demo.explain.causal import Causal, Padding
from opensora_demo.explain.modulation import Modulation
from opensora_demo.explain.scaling import Scaled
from opensora_demo.messages import Message, in_a_row, message
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.ui.values.common import MessageValue, said
from opensora_demo.ui.values.pictures import PixelsValue, StripValue, b64, pixels, strip, thin

Axis = Literal["space", "time"]
BlockPart = Literal["attention", "mlp", "both"]
CHANNEL_PX = 16  # places a side of one output channel
CLOSE = 1.05  # bounds of a standard deviation that are no further apart leave little to choose


class MissingValue(TypedDict):
    """Why a figure cannot be drawn."""

    missing: MessageValue


class HalvesPictures(TypedDict):
    """The latent, what was predicted for it with the prompt and without, how far apart these are, and their mix."""

    latent: PixelsValue
    prompt: PixelsValue
    null: PixelsValue
    gap: PixelsValue
    mix: PixelsValue


class HalvesValue(TypedDict):
    """The doubled batch of one step: sizes of what went in and what came out, and one latent frame of each."""

    fact: MessageValue
    scale: float
    given: list[int]
    answered: list[int]
    peak: float
    pictures: HalvesPictures


class ChannelsValue(TypedDict):
    """Output channels: `latent` of them and, where there are more, as many again. `values` holds channels x height x
    width bytes in base64, 128 for nothing."""

    fact: MessageValue
    latent: int
    channels: int
    height: int
    width: int
    use: Use
    values: str


class GateValue(TypedDict):
    """A gate before training and now, root mean square over channels, mean over flow times."""

    layer: int
    kind: Axis | None
    part: BlockPart
    start: float
    now: float


class AddedValue(TypedDict):
    """What a block adds to its input, as a share of it, before training and now."""

    layer: int
    kind: Axis | None
    start: float
    now: float


class GatesValue(TypedDict):
    """Gates and additions of every block, in the network's order."""

    fact: MessageValue
    gates: list[GateValue]
    added: list[AddedValue]


class MaskValue(TypedDict):
    """What a mask of this run would take; the calculator beside it needs nothing of the run."""

    fact: MessageValue


class FilteredValue(TypedDict):
    """A strip of `frames` frames through a causal convolution: `reach[i][j]` of output i is input j."""

    padding: Padding
    frames: int
    reach: list[list[float]]
    picture: PixelsValue


class CausalValue(TypedDict):
    """A few frames of the clip, and what the convolution makes of them with each padding."""

    fact: MessageValue
    strip: PixelsValue
    filtered: list[FilteredValue]


class ScaledValue(TypedDict):
    """A latent frame times each of `factors`: its standard deviation, what is decoded, and its PSNR in dB against the
    picture of the right latents."""

    fact: MessageValue
    factors: list[float]
    deviations: list[float]
    psnr: list[float]
    picture: StripValue


def place_of(m: Modulation) -> tuple[Axis | None, BlockPart]:
    """Over which axis, and in which part of a block, a modulation acts."""
    over = m.part if m.part in ("space", "time") else m.block
    kind: Axis | None = "space" if over == "space" else "time" if over == "time" else None
    return kind, "mlp" if m.part == "mlp" else "both" if m.part == "attention and mlp" else "attention"


def halves_value(part: Halves) -> HalvesValue | MissingValue:
    if not part.pictures:
        return {"missing": said(message("note.guidance.none"))}
    fact = message(
        "note.halves.one" if part.calls == 1 else "note.halves.several",
        step=part.index + 1,
        total=part.total,
        t=round(part.t, 2),
        calls=part.calls,
        apart=float(f"{part.apart:.2g}"),
        peak=float(f"{part.peak:.2g}"),
    )
    return {
        "fact": said(fact),
        "scale": part.scale,
        "given": list(part.given),
        "answered": list(part.answered),
        "peak": round(part.peak, 4),
        "pictures": {
            "latent": pixels(part.pictures["latent"]),
            "prompt": pixels(part.pictures["prompt"]),
            "null": pixels(part.pictures["null"]),
            "gap": pixels(part.pictures["gap"]),
            "mix": pixels(part.pictures["mix"]),
        },
    }


def channels_value(part: Channels, spec: ModelSpec) -> ChannelsValue:
    values = thin(part.values[..., None], CHANNEL_PX)[..., 0]
    channels, height, width = values.shape
    numbers = {"outputs": channels, "channels": part.latent}
    if part.noise is not None:
        low, mean, high = (float(f"{x:.4g}") for x in part.noise)
        numbers |= {"step": part.index + 1, "low": low, "mean": mean, "high": high}
    code: str = part.use
    if part.use == "none" and isinstance(spec.sampler, IddpmConfig):
        code = "fixed"
    if part.use == "variance" and part.noise is None:
        code = "variance_last"
    facts = [message(f"note.channels.{code}", **numbers)]
    if part.noise is not None and part.noise[2] < CLOSE * part.noise[0]:
        facts.append(message("note.channels.bounds"))
    return {
        "fact": said(in_a_row(*facts)),
        "latent": part.latent,
        "channels": channels,
        "height": height,
        "width": width,
        "use": part.use,
        "values": b64(values),
    }


def gates_value(part: Beginning) -> GatesValue | MissingValue:
    if not part.gates:
        return {"missing": said(message("note.gates.large" if part.too_large else "note.gates.unknown"))}
    parts = max(added.part for added in part.added)
    kinds: tuple[Axis | None, ...] = ("space", "time") if parts else (None,)
    start, now = [a.start for a in part.added], [a.now for a in part.added]
    numbers = {"low": round(min(now), 2), "high": round(max(now), 2)}
    if max(*start, *(gate.start for gate in part.gates)) == 0:
        fact = message("note.gates.zero", **numbers)
    else:
        gate = float(np.mean([gate.start for gate in part.gates]))
        fact = message("note.gates.random", gate=round(gate, 3), most=round(max(start), 2), **numbers)
    return {
        "fact": said(fact),
        "gates": [
            {
                "layer": gate.modulation.layer,
                "kind": place_of(gate.modulation)[0],
                "part": place_of(gate.modulation)[1],
                "start": round(gate.start, 4),
                "now": round(gate.now, 4),
            }
            for gate in part.gates
        ],
        "added": [
            {"layer": a.layer, "kind": kinds[a.part], "start": round(a.start, 4), "now": round(a.now, 4)}
            for a in part.added
        ],
    }


def mask_value(part: Masking, spec: ModelSpec) -> MaskValue:
    if spec.text_mode in ("pooled vector", "class label"):
        fact = message("note.mask.vector")
    else:
        size = part.batch * part.heads * part.patches * part.words
        whole = message(
            "note.mask.whole",
            batch=part.batch,
            heads=part.heads,
            patches=part.patches,
            words=part.words,
            bytes=4 * size,
        )
        used = message("note.mask.unused")
        if part.used:
            sizes = [" x ".join(map(str, mask)) for mask in part.used]
            used = message("note.mask.used", sizes=tuple(sizes), bytes=max(map(math.prod, part.used)))
        fact = in_a_row(whole, used)
    return {"fact": said(fact)}


def causal_value(part: Causal) -> CausalValue:
    first = {f.padding: sum(f.reach[0]) for f in part.filtered if f.frames == 1}
    light = {name: round(100 * share) for name, share in first.items()}
    facts: list[Message] = [message("note.causal.light", zeros=light["constant"], copies=light["replicate"])]
    facts += [message(f"note.causal.codec_{mode}", count=count) for mode, count in part.paddings.items()]
    if not part.paddings:
        facts.append(message("note.causal.codec_none"))
    return {
        "fact": said(in_a_row(*facts)),
        "strip": pixels(part.strip),
        "filtered": [
            {
                "padding": f.padding,
                "frames": f.frames,
                "reach": [list(row) for row in f.reach],
                "picture": pixels(f.picture),
            }
            for f in part.filtered
        ],
    }


def scaled_value(part: Scaled) -> ScaledValue:
    right = part.deviations[part.factors.index(1.0)]
    fact = message(
        "note.scaled",
        right=round(right, 2),
        least=part.factors[0],
        most=part.factors[-1],
        low=round(part.psnr[0], 1),
        high=round(part.psnr[-1], 1),
    )
    return {
        "fact": said(fact),
        "factors": list(part.factors),
        "deviations": [round(x, 3) for x in part.deviations],
        "psnr": [round(x, 1) for x in part.psnr],
        "picture": strip(part.pictures),
    }
