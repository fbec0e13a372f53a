"""The values as the scripts' types: `python -m opensora_demo.ui.values.types` writes `assets/ui/types.d.ts`."""

from __future__ import annotations

import inspect
import types
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from opensora_demo.explain.attention import Kind
from opensora_demo.ui.scripts import UI_ASSETS
from opensora_demo.ui.values import common, compare, explain, gallery, lesson, modes, scope, stage

FILE = UI_ASSETS / "types.d.ts"
HEAD = "// Written by `python -m opensora_demo.ui.values.types` from opensora_demo/ui/values.\n"
VALUES = (
    stage.StageValue,
    stage.ExamplesValue,
    compare.CompareValue,
    scope.ScopeValue,
    explain.ExplainValue,
    explain.AskedValue,
    modes.ModesValue,
    lesson.LessonValue,
    gallery.GalleryValue,
    common.ChipsValue,
    common.PromptValue,
    common.GuidanceCurveValue,
    common.ModelValue,
    common.RunValue,
    common.IdleValue,
)
ALIASES: dict[str, Any] = {
    "Phase": common.Phase,
    "ChipKind": common.ChipKind,
    "PromptWordKind": common.PromptWordKind,
    "Quantity": scope.Quantity,
    "AttentionKind": Kind,
    "QueueState": gallery.QueueState,
    "CellValue": compare.CellValue,
}
SIMPLE = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null", Any: "any"}


def type_script(hint: Any, *, alias: bool = True) -> str:
    """A type of ours as TypeScript writes it. Raises TypeError for one that JSON does not have."""
    if alias:
        for name, known in ALIASES.items():
            if hint == known:
                return name
    if hint in SIMPLE:
        return SIMPLE[hint]
    if is_typeddict(hint):
        return str(hint.__name__)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(type_script(part) for part in inner)
    if origin is dict:
        return f"Record<{type_script(inner[0])}, {type_script(inner[1])}>"
    if origin is list or (origin is tuple and inner[1:] == (...,)):
        element = type_script(inner[0])
        return f"({element})[]" if " | " in element else f"{element}[]"
    if origin is tuple:
        return f"[{', '.join(map(type_script, inner))}]"
    raise TypeError(f"{hint} is not a type of a value")


def interface(value: Any) -> str:
    hints = get_type_hints(value, include_extras=True)
    lines = []
    for name, hint in hints.items():
        left_out = get_origin(hint) is NotRequired
        optional = left_out or not value.__total__
        shown = get_args(hint)[0] if left_out else hint
        lines.append(f"  {name}{'?' * optional}: {type_script(shown)};")
    note = inspect.cleandoc(value.__doc__ or "").replace("\n", "\n * ").replace("\n * \n", "\n *\n")
    return f"/**\n * {note}\n */\nexport interface {value.__name__} {{\n" + "\n".join(lines) + "\n}\n"


def dictionaries(hint: Any) -> list[Any]:
    """The typed dictionaries inside of a type."""
    if is_typeddict(hint):
        return [hint]
    return [part for inner in get_args(hint) if inner is not ... for part in dictionaries(inner)]


def all_dictionaries() -> list[Any]:
    """Those of `VALUES`, and all that they hold."""
    found: list[Any] = []
    waiting: list[Any] = list(VALUES)
    while waiting:
        value = waiting.pop(0)
        if value not in found:
            found.append(value)
            waiting += [part for hint in get_type_hints(value).values() for part in dictionaries(hint)]
    return found


def declarations() -> str:
    """The whole file."""
    aliases = [f"export type {name} = {type_script(hint, alias=False)};\n" for name, hint in ALIASES.items()]
    return "\n".join([HEAD, "".join(aliases), *map(interface, all_dictionaries())])


if __name__ == "__main__":
    FILE.write_text(declarations(), "utf-8")
