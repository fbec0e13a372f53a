"""Every recorded case of the reference implementation: the same numbers, output by output.

`OPENSORA_REFERENCE=DIR python -m pytest tests/parity` runs the cases found in DIR. A system that is not known fails.
"""

from __future__ import annotations

import pytest
import torch

from . import systems_codecs, systems_v10, systems_v12, systems_v13, systems_v20
from .reference import FOLDER, load_case, relative_error

SYSTEMS = {
    **systems_codecs.SYSTEMS,
    **systems_v10.SYSTEMS,
    **systems_v12.SYSTEMS,
    **systems_v13.SYSTEMS,
    **systems_v20.SYSTEMS,
}
CASES = sorted(f.parent.name for f in FOLDER.glob("*/case.json"))


def test_cases_are_there() -> None:
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = load_case(FOLDER / name)
    assert case.system in SYSTEMS, f"no code for the system {case.system}"
    with torch.no_grad():
        ours = SYSTEMS[case.system](case)
    missing = sorted(set(case.expected) - set(ours))
    assert not missing, f"not computed: {missing[:8]}"
    errors = {key: relative_error(ours[key], expected) for key, expected in case.expected.items()}
    wrong = {key: error for key, error in errors.items() if not error <= case.tolerance}
    assert not wrong, wrong
