"""Faults of packages that are known to the public, as a list that is kept here: nobody has to be asked.

`assets/advisories.json` says which version mends each; the ranges of pyproject.toml begin there or later, and `doctor`
compares what is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from opensora_demo.locations import assets_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """`ids` are CVE or GHSA numbers, `fixed` the first version without the fault, None where there is none yet and
    what is at fault is not called here."""

    package: str
    fixed: str | None
    ids: tuple[str, ...]
    what: str


def advisories() -> tuple[Advisory, ...]:
    found = json.loads((assets_dir() / "advisories.json").read_text("utf-8"))["advisories"]
    return tuple(Advisory(**{**entry, "ids": tuple(entry["ids"])}) for entry in found)


def checked_on() -> str:
    """The day on which the list was compared with what is known, as YYYY-MM-DD."""
    return str(json.loads((assets_dir() / "advisories.json").read_text("utf-8"))["checked"])


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version that count for its order: 2.13.0+cpu is (2, 13, 0)."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[+a-z]", version, maxsplit=1)[0])]
    return tuple([*numbers, 0, 0, 0][: max(len(numbers), 3)])


def open_advisories(installed: Callable[[str], str | None]) -> list[Advisory]:
    """Those that apply to the versions that `installed` answers by the name of a package, None where it is not."""
    return [
        advisory
        for advisory in advisories()
        if advisory.fixed is not None
        and (version := installed(advisory.package)) is not None
        and release(version) < release(advisory.fixed)
    ]
