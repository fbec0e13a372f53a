"""Every model the demo can run, as literal data.

The `nano` models are entries like any other: the published classes with small numbers.
"""

from __future__ import annotations

from opensora_demo.catalog.debug import DEBUG
from opensora_demo.catalog.nano import NANO, NANO_DIT, NANO_MMDIT
from opensora_demo.catalog.published import PUBLISHED
from opensora_demo.catalog.spec import ModelSpec, RandomWeights, TextMode, WeightFiles
from opensora_demo.errors import RequestError

__all__ = ["DEFAULT_MODEL", "MODELS", "NANO", "ModelSpec", "RandomWeights", "TextMode", "WeightFiles", "find_model"]

MODELS: dict[str, ModelSpec] = {spec.id: spec for spec in (NANO, NANO_DIT, NANO_MMDIT, *PUBLISHED, *DEBUG)}
DEFAULT_MODEL = NANO.id


def find_model(model_id: object) -> ModelSpec:
    """The entry called `model_id`; None or an empty text is the default. Raises RequestError("model")."""
    if model_id is None or model_id == "":
        model_id = DEFAULT_MODEL
    if not isinstance(model_id, str) or model_id not in MODELS:
        known = ", ".join(spec.id for spec in MODELS.values() if not spec.hidden)
        raise RequestError("model", f"must be one of {known}, not {str(model_id)[:40]!r}")
    return MODELS[model_id]
