"""Every model the demo can run, as literal data.

The `nano` models are entries like any other: the published classes with small numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from opensora_demo.catalog.debug import DEBUG
from opensora_demo.catalog.nano import (
    NANO,
    NANO_CLASS,
    NANO_CONCAT,
    NANO_CROSS,
    NANO_DIT,
    NANO_MMDIT,
    NANO_REPLACED,
    NANO_WEAK,
)
from opensora_demo.catalog.published import PUBLISHED
from opensora_demo.catalog.spec import ElsewhereWeights, ModelSpec, RandomWeights, WeightFiles
from opensora_demo.errors import RequestError
from opensora_demo.messages import message
from opensora_demo.models.base import TextMode

__all__ = [
    "DEFAULT_MODEL", "MODELS", "NANO", "ElsewhereWeights", "ModelSpec", "RandomWeights", "TextMode", "WeightFiles",
    "find_model", "offer_only",
]  # fmt: skip

_NANO = (NANO, NANO_DIT, NANO_MMDIT, NANO_CLASS, NANO_CROSS, NANO_CONCAT, NANO_REPLACED, NANO_WEAK)
MODELS: dict[str, ModelSpec] = {spec.id: spec for spec in (*_NANO, *PUBLISHED, *DEBUG)}
DEFAULT_MODEL = NANO.id


def offer_only(specs: Iterable[ModelSpec]) -> None:
    """From now on there are these models in this process, which another server runs. Called once, before anything is
    built of them."""
    found = {spec.id: spec for spec in specs}
    MODELS.clear()
    MODELS.update(found)


def find_model(model_id: object, listed: Collection[ModelSpec] | None = None) -> ModelSpec:
    """The entry called `model_id`; None or an empty text is the default. Raises RequestError("model"), which names
    those that are `listed`, by default all but the hidden ones."""
    if model_id is None or model_id == "":
        model_id = DEFAULT_MODEL if DEFAULT_MODEL in MODELS else next(iter(MODELS))
    if not isinstance(model_id, str) or model_id not in MODELS:
        listed = [spec for spec in MODELS.values() if not spec.hidden] if listed is None else listed
        known = tuple(spec.id for spec in listed)
        raise RequestError("model", message("request.one_of", choices=known, got=repr(str(model_id)[:40])))
    return MODELS[model_id]
