"""Gradio without the type stubs that it writes.

For every class of components Gradio 6 parses the class's source and its .pyi file, writes that file anew from a
template and compares both (`gradio/component_meta.py`, `create_or_modify_pyi`): for some sixty classes of its own at
every start, which is half of what `import gradio` takes, and for ours beside our sources. Nothing reads them while a
page is served, and Gradio's own are in its package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

MODULE, WRITER = "gradio.component_meta", "create_or_modify_pyi"


class _Silent(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, WRITER):
            setattr(module, WRITER, lambda *_: None)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Silent(spec.loader.name, spec.loader.path)
        return spec


def write_no_stubs() -> None:
    """From now on. Where Gradio is imported already, only of the classes that are still to come."""
    if module := sys.modules.get(MODULE):
        setattr(module, WRITER, lambda *_: None)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
