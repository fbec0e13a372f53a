"""What each rule of guidance does, in a line: its formula, what it is for, where it comes from, and what it takes.

In the formulas c and u are the predictions of the prompt and of the null branch, Δ = c − u, s the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opensora_demo.messages import Message, Param, message
from opensora_demo.request.limits import Rule
from opensora_demo.sampling.bends import APG_LIMIT, APG_MOMENTUM, FDG_LOW, MAMBO_DAMPING, RESCALE
from opensora_demo.sampling.guidance import INTERVAL, SKIP_SHARE


@dataclass(frozen=True, slots=True)
class GuidanceNote:
    """A formula, a sentence, authors with a year, and how often the network is called at a step."""

    formula: Message
    purpose: Message
    source: str
    passes: Message


def _note(rule: Rule, source: str, passes: Message, **numbers: Param) -> GuidanceNote:
    """`numbers` stand in the formula."""
    code = f"note.rule.{rule}"
    return GuidanceNote(message(f"{code}.formula", **numbers), message(f"{code}.purpose"), source, passes)


_TWO, _THREE = message("note.passes", n=2), message("note.passes", n=3)
_UP_TO_TWO = message("note.passes.up_to", n=2)
GUIDANCE_NOTES: Mapping[Rule, GuidanceNote] = {
    "plain": _note("plain", "Ho & Salimans 2022", _TWO),
    "interval": _note("interval", "Kynkäänniemi et al. 2024", _UP_TO_TWO, low=INTERVAL[0], high=INTERVAL[1]),
    "oscillating": _note("oscillating", "Open-Sora 2.0", _UP_TO_TWO),
    "rescale": _note("rescale", "Lin et al. 2023", _TWO, kept=RESCALE, rest=1 - RESCALE),
    "apg": _note(
        "apg",
        "Sadat et al. 2024",
        _TWO,
        momentum=f"{APG_MOMENTUM:g}".replace("-", "−"),
        limit=f"{APG_LIMIT:.2g}",
    ),
    "cfg-zero": _note("cfg-zero", "Fan et al. 2025", _TWO),
    "mambo-g": _note("mambo-g", "arXiv 2508.03442", _TWO, damping=MAMBO_DAMPING),
    "tcfg": _note("tcfg", "Kwon et al. 2025", _TWO),
    "fdg": _note("fdg", "Sadat et al. 2025", _TWO, low=FDG_LOW),
    "skip-layer": _note("skip-layer", "Hyung et al. 2024", _THREE, share=f"1/{1 / SKIP_SHARE:g}"),
    "autoguidance": _note("autoguidance", "Karras et al. 2024", message("note.passes.weaker")),
}
