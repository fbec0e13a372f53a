"""Open-Sora Demo from Python: load a model, make a clip, compare guidance scales over one noise.

    import opensora_demo
    model = opensora_demo.load("nano")
    opensora_demo.generate(model, "a red ball bouncing over a meadow", seed=7).save("clip.mp4")

Names are imported when they are first used: `import opensora_demo` alone costs nothing, torch least of all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opensora_demo.catalog import MODELS as MODELS
    from opensora_demo.python_api import Video as Video
    from opensora_demo.python_api import compare as compare
    from opensora_demo.python_api import generate as generate
    from opensora_demo.python_api import load as load

__version__ = "0.2.0"
__all__ = ["MODELS", "Video", "__version__", "compare", "generate", "load"]

_HOMES = {"MODELS": "catalog"} | dict.fromkeys(("Video", "compare", "generate", "load"), "python_api")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
