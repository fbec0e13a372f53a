"""The runner of each system of the reference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import systems_codecs, systems_v10, systems_v12, systems_v13, systems_v20
from .options import UnknownOption
from .reference import Case

MODULES = (systems_codecs, systems_v10, systems_v12, systems_v13, systems_v20)
SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    name: run for module in MODULES for name, run in module.SYSTEMS.items()
}
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    name: build for module in MODULES for name, build in module.MANIFESTS.items()
}


def run(case: Case) -> dict[str, Tensor]:
    """The outputs of a case, computed with every option that it names. Raises UnknownOption for a system, or an option
    or input that its runner does not ask for; an error on the way says which those are so far."""
    if case.system not in SYSTEMS:
        raise UnknownOption(f"no code for the system {case.system}")
    try:
        with torch.no_grad():
            out = SYSTEMS[case.system](case)
    except Exception as error:
        error.add_note(f"not asked for until then: {', '.join(case.unread()) or 'nothing'}")
        raise
    if unread := case.unread():
        raise UnknownOption(f"the system {case.system} does not know {', '.join(unread)}")
    return out
