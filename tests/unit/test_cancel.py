"""Stop at every stage of a real run, with the smallest model there is."""

from __future__ import annotations

from benchmarks.cancel import measure, stages

STEPS = 4


def test_a_run_ends_within_one_block_and_the_next_has_the_device() -> None:
    found = measure("debug-1.2", STEPS, into_s=0.0)
    assert len(found) == len(stages(STEPS)) == 8
    assert {stage: one.blocks for stage, one in found.items()} == dict.fromkeys(found, 0)
    states = {stage: one.state for stage, one in found.items()}
    assert states.pop("writing") == "done"  # what is written is a run that has ended
    assert set(states.values()) == {"cancelled"}
