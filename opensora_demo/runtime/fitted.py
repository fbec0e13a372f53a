"""What suits this processor, measured when a small model is loaded for the first time: in which numbers its network and
codec compute (`runtime.precision`), and with how many threads the network does for one clip.

It is kept beside the encoded prompts, and holds for this processor, version of torch and number of threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from opensora_demo.catalog.spec import RandomWeights
from opensora_demo.runtime.precision import (
    GAIN,
    Half,
    gain,
    halve,
    has_bfloat16,
    modules_of,
    precision_of,
    processor,
    step,
)
from opensora_demo.weights.options import Precision

if TYPE_CHECKING:
    from opensora_demo.runtime.bundle import ModelBundle

log = logging.getLogger(__name__)
KEPT = "fitted.json"
ALONE = 0.95  # all threads' time over one's: one that is as fast is steadier beside other programs
_ROUNDS = 7


def fit(bundle: ModelBundle, wish: Precision, folder: Path | None) -> None:
    """Change a small model on a CPU, in place, to what suits the processor: by what is kept in `folder` (None keeps
    nothing), else by what a step and a decode take now, about a second of work. "stored" measures and changes nothing,
    and only "auto" looks for the precision."""
    spec = bundle.spec
    if wish == "stored" or bundle.device.type != "cpu" or spec.published or isinstance(spec.weights, RandomWeights):
        return
    kept = _Kept(folder)
    if wish == "auto" and has_bfloat16():
        for part, module in modules_of(bundle).items():
            if kept.number(_key(bundle, part), lambda part=part: gain(bundle, part)) > GAIN:  # type: ignore[misc]
                halve(module)
                if part == "network" and bundle.family.weaker is not None:  # the same, trained for less
                    halve(bundle.family.weaker.network)
    if (threads := torch.get_num_threads()) > 1:
        key = f"{_key(bundle, 'network')}, {precision_of(bundle)['network']}, one of {threads} threads"
        alone = kept.number(key, lambda: one_threads_gain(bundle)) > ALONE
        for family in filter(None, (bundle.family, bundle.family.weaker)):
            family.one_thread = alone
    kept.save()


def one_threads_gain(bundle: ModelBundle, rounds: int = _ROUNDS) -> float:
    """The time that a step of one clip takes with all threads over that with one, each the least of some rounds in
    turn. A small network loses more by waking threads than it gains, on some machines."""
    family, least = bundle.family, [math.inf, math.inf]
    with torch.inference_mode():
        work = step(bundle)
        for turn in range(rounds + 1):
            for alone in (False, True):
                family.one_thread = alone
                begin = time.perf_counter()
                work()
                if turn:  # what is made at the first call does not count
                    least[alone] = min(least[alone], time.perf_counter() - begin)
    family.one_thread = False
    return least[0] / least[1]


def _key(bundle: ModelBundle, part: Half) -> str:
    """What a measurement holds for: models with the same codec share it."""
    spec = bundle.spec
    shapes = (spec.network if part == "network" else spec.codec, spec.limits.size_px, spec.limits.default_frames)
    return f"{processor()}, torch {torch.__version__}, {part} {hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]}"


class _Kept:
    """The numbers of a folder's file. One that is damaged counts as none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.new = folder, dict[str, float]()
        self.found = self._read()

    def number(self, key: str, measure: Callable[[], float]) -> float:
        if key not in self.found:
            self.found[key] = self.new[key] = round(measure(), 3)
        return self.found[key]

    def _read(self) -> dict[str, float]:
        if self.folder is None:
            return {}
        try:
            found: Mapping[str, object] = json.loads((self.folder / KEPT).read_text("utf-8"))
            return {key: float(value) for key, value in found.items()}  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def save(self) -> None:
        """Together with what others have written meanwhile."""
        if self.folder is None or not self.new:
            return
        part = self.folder / f"{KEPT}.{secrets.token_hex(4)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._read() | self.new, indent=1) + "\n", "utf-8")
            part.replace(self.folder / KEPT)
        except OSError as error:  # it is measured again next time
            log.warning("what suits this processor could not be kept: %s", error)
            with suppress(OSError):
                part.unlink(missing_ok=True)
