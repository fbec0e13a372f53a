"""What a recorded case says, remembering what was asked of it: no option is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

INERT = (
    "class_dropout_prob",
    "drop_path",
    "dropout",
    "enable_flash_attn",
    "enable_flashattn",
    "enable_layernorm_kernel",
    "enable_sequence_parallelism",
    "freeze",
    "freeze_y_embedder",
    "from_pretrained",
    "grad_ckpt_settings",
    "only_train_temporal",
    "type",
)
"""Arguments of the reference's constructors that only training, speed or the reading of files depends on."""


class UnknownOption(AssertionError):
    """A case names an option, or a value of one, that no runner knows."""


class Options(Mapping[str, Any]):
    """The options of a case, nested ones too. `unread` tells which nobody has asked for; asking whether a name is
    there is not asking for its value. A look-up that fails names the whole path."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._path = path
        self._values = {name: _wrapped(value, f"{path}{name}") for name, value in values.items()}
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._asked.add(name)
        if name not in self._values:
            raise KeyError(f"{self._path}{name}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def only(self, name: str, *known: Any) -> Any:
        """The value of an option that must be one of `known`, the first of which stands for one that is missing."""
        value = self.get(name, known[0])
        if value not in known:
            raise self.unknown(name, f"known: {', '.join(map(repr, known))}")
        return value

    def inert(self, *names: str) -> None:
        """These change nothing in what is computed."""
        self._asked.update(names)

    def unknown(self, name: str, why: str) -> UnknownOption:
        return UnknownOption(f"{self._path}{name} = {self._values.get(name)!r}; {why}")

    def unread(self) -> list[str]:
        """Paths of the options that nobody asked for."""
        found = []
        for name, value in self._values.items():
            if name not in self._asked:
                found.append(f"{self._path}{name}")
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Options):
                    found += part.unread()
        return found


def _wrapped(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return Options(value, f"{path}.")
    if isinstance(value, list):
        return [_wrapped(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return value
