"""Every recorded case of the reference implementation: the same numbers, output by output.

`OPENSORA_REFERENCE=DIR python -m pytest tests/parity` runs the cases found in DIR. A system, an option or an
input that no runner asks for fails, and is named.
"""

from __future__ import annotations

import pytest

from .reference import FOLDER, load_case, relative_error
from .systems import run

CASES = sorted(f.parent.name for f in FOLDER.glob("*/case.json"))


def test_cases_are_there() -> None:
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = load_case(FOLDER / name)
    ours = run(case)
    missing = sorted(set(case.expected) - set(ours))
    assert not missing, f"not computed: {missing[:8]}"
    errors = {key: relative_error(ours[key], expected) for key, expected in case.expected.items()}
    wrong = {key: error for key, error in errors.items() if not error <= case.tolerance}
    assert not wrong, wrong
