"""Link what the package requires, and nothing else, from this environment into another: `link_required.py SITE`, the
packages of the other, in which the wheel itself is installed.

An installation from nothing would unpack the same files again, which takes longer than all that is checked with them.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def required(dist: Distribution, found: dict[str, Distribution], extras: frozenset[str] = frozenset()) -> None:
    """All that a distribution asks for, and what that asks for. Raises where the version at hand is not the asked."""
    for text in dist.requires or ():
        need = Requirement(text)
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        other = distribution(need.name)
        if not need.specifier.contains(other.version, prereleases=True):
            raise SystemExit(f"{dist.name} asks for {need}, here is {other.version}")
        key = f"{other.name} {sorted(need.extras)}"
        if key not in found:
            found[key] = other
            required(other, found, frozenset(need.extras))


def main(site: str) -> None:
    (own,) = Distribution.discover(name="opensora-demo", path=[site])
    found: dict[str, Distribution] = {}
    required(own, found)
    for dist in {d.name: d for d in found.values()}.values():
        root = Path(str(dist.locate_file("")))
        for file in dist.files or ():
            source, target = root / file, Path(site) / file
            if file.parts[0] == ".." or file.suffix == ".pyc" or not source.is_file():  # commands
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk
                shutil.copyfile(source, target)
    print(f"{len({d.name for d in found.values()})} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
