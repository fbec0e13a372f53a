"""What solves an exercise of the lesson, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from opensora_demo.toy.exercises import ALL_FOUR, EXERCISES, Made


def made(wrong: tuple[str, ...] = (), free: tuple[str, ...] = (), **settings: Any) -> Made:
    """A clip of which all is asked but `free`, and all of it right but `wrong`."""
    asked = ALL_FOUR.difference(free)
    return Made({"prompt": "a red ball", "seed": 1, "steps": 16, "guidance": 4.0} | settings, asked, asked - set(wrong))


@pytest.mark.parametrize(
    ("exercise", "clips", "solving"),
    [
        ("noise", [made(seed=1), made(seed=2)], [0, 1]),
        ("noise", [made(seed=1), made(seed=1)], []),  # one noise
        ("noise", [made(seed=1), made(seed=2, prompt="a blue ball")], []),  # another prompt
        ("noise", [made(seed=1), made(seed=2, wrong=("shape",))], []),
        ("noise", [made(seed=1, free=tuple(ALL_FOUR)), made(seed=2, free=tuple(ALL_FOUR))], []),  # nothing was asked
        ("noise", [made(seed=1, free=("place",)), made(seed=5, steps=8), made(seed=3)], [0, 2]),
        ("guess", [made(steps=3, wrong=("shape", "motion"))], [0]),
        ("guess", [made(steps=4), made(steps=3, wrong=("colour",))], []),
        ("guess", [made(steps=3, free=("colour",))], []),
        ("steps", [made(steps=16), made(steps=6)], [1]),
        ("steps", [made(steps=6, free=("place",)), made(steps=7)], []),  # three are not all four
        ("guidance", [made(guidance=3.0)], [0]),
        ("guidance", [made(guidance=3.5), made(guidance=1.0, wrong=("motion",))], []),
        ("seed", [made(seed=1, wrong=("motion",)), made(seed=2)], [0, 1]),
        ("seed", [made(seed=1, wrong=("motion",)), made(seed=2, wrong=("shape",))], []),
        ("seed", [made(seed=1, wrong=("motion",)), made(seed=2, steps=8)], []),
        ("failure", [made(), made(wrong=("motion",))], [1]),
        ("failure", [made(wrong=("shape",)), made(free=("motion",))], []),
    ],
)
def test_what_solves_an_exercise(exercise: str, clips: list[Made], solving: list[int]) -> None:
    assert EXERCISES[exercise](clips) == solving
    assert EXERCISES[exercise]([]) == []
