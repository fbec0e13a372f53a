"""The table of guidance rules: resumed, counted, written, and the one in docs/guidance.md is what its numbers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from opensora_demo.catalog.nano import NANO
from opensora_demo.evaluation import guidance_rules
from opensora_demo.evaluation.guidance_rules import (
    BEGIN,
    END,
    JSON,
    NO_GUIDANCE,
    PAGE,
    PICTURE,
    Cell,
    RuleStudy,
    Shot,
    cells_of,
    chapter,
    collect,
    read_records,
    read_rule_study,
    study_of,
    wilson,
    with_chapter,
    write,
)
from opensora_demo.evaluation.studies.base import Counts, Setup
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.toy.reader import load_reader
from opensora_demo.toy.worlds import Scene

DOCS = Path(__file__).parents[2] / "docs"
CELLS = cells_of(("plain", "apg"), (4.0, 7.0))


class Made:
    """A measurement whose answers are known: which prompts were asked for in which cells."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.asked: list[tuple[int, tuple[Cell, ...]]] = []
        self.stop_before = stop_before

    def __call__(
        self, setup: Setup, scene: Scene, prompt: str, index: int, steps: int, cells: Sequence[Cell]
    ) -> tuple[Shot, ...]:
        if index == self.stop_before:
            raise KeyboardInterrupt
        self.asked.append((index, tuple(cells)))
        return tuple(
            Shot(
                rule=rule,
                scale=scale,
                right=index % 2 == 0 or rule == "apg",
                saturation=0.25,
                clipped=scale / 100,
                distance=0.5 if index % 4 == 0 else None,
            )
            for rule, scale in cells
        )


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Of a model that is not loaded."""
    monkeypatch.setattr(guidance_rules, "fingerprint", lambda spec: "abc")

    class Named:
        spec = NANO

    return Setup(bundle=Named(), reader=None, counts=Counts())  # type: ignore[arg-type]


def collected(setup: Setup, file: Path, prompts: int, cells: Sequence[Cell], made: Made) -> list[int]:
    return list(collect(setup, file, prompts, 16, cells, made))


def study(setup: Setup, file: Path) -> RuleStudy:
    collected(setup, file, 8, CELLS, Made())
    return study_of("nano", read_records(file, "abc", 16), 256, "2026-11-29")


def test_a_stopped_run_goes_on_where_it_was(setup: Setup, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collected(setup, file, 6, CELLS, Made(stop_before=3))
    with file.open("a") as lines:
        lines.write('{"prompt": 3, "wei')  # in the middle of a line
    made = Made()
    assert collected(setup, file, 6, CELLS, made) == [0, 1, 2, 3, 4, 5]
    assert [index for index, _ in made.asked] == [3, 4, 5]
    more = Made()
    collected(setup, file, 2, cells_of(("plain", "tcfg"), (4.0,)), more)
    assert more.asked == [(0, (("tcfg", 4.0),)), (1, (("tcfg", 4.0),))]
    assert len(read_records(file, "abc", 16)) == 8
    assert read_records(file, "other", 16) == read_records(file, "abc", 8) == []


def test_a_cell_is_the_mean_of_its_prompts(setup: Setup, tmp_path: Path) -> None:
    found = study(setup, tmp_path / "records.jsonl")
    plain, apg = found.find("plain", 7.0), found.find("apg", 7.0)
    assert plain is not None
    assert apg is not None
    assert (plain.prompts, plain.right, plain.pairs, plain.diversity) == (8, 0.5, 2, 0.5)
    assert plain.clipped == pytest.approx(0.07)
    assert apg.right == 1
    assert apg.low == pytest.approx(0.676, abs=1e-3)
    assert found.scales == (4.0, 7.0)
    with pytest.raises(ValueError, match="no records"):
        study_of("nano", [], 256, "")


def test_wilsons_interval() -> None:
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10)[0] == pytest.approx(0)
    assert wilson(256, 256) == (pytest.approx(0.985, abs=1e-3), 1)


def test_the_result_is_written_beside_the_page(setup: Setup, tmp_path: Path) -> None:
    if find_spec("matplotlib") is None:
        pytest.skip("no matplotlib")
    found = study(setup, tmp_path / "records.jsonl")
    (tmp_path / PAGE).write_text(f"# Rules\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write(found, tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "old" not in page
    assert page.startswith("# Rules")
    assert page.endswith("after\n")
    assert "| no guidance | 1 | 50 % (22 to 78) | 0.500 | 0.250 | 1.0 % | 8 |" in page
    assert "8 prompts a cell (256 were asked for)" in page
    assert with_chapter(page, read_rule_study(tmp_path / JSON)) == page
    assert (tmp_path / PICTURE).stat().st_size > 1000


def test_the_committed_page_says_what_its_numbers_say() -> None:
    file = DOCS / JSON
    if not file.is_file():
        pytest.skip("not measured yet")
    page = (DOCS / PAGE).read_text("utf-8")
    assert with_chapter(page, read_rule_study(file)) == page
    assert (DOCS / PICTURE).is_file()


@pytest.mark.slow
def test_a_prompt_is_measured_in_all_its_cells(tmp_path: Path) -> None:
    """On the real model, quickly: what is read and how far apart two noises are."""
    setup = Setup(bundle=build_bundle(NANO), reader=load_reader(), counts=Counts())
    cells = cells_of(("plain", "apg"), (4.0,))
    assert list(collect(setup, tmp_path / "records.jsonl", 1, 2, cells)) == [0]
    line = json.loads((tmp_path / "records.jsonl").read_text())
    assert [(shot["rule"], shot["scale"]) for shot in line["shots"]] == [NO_GUIDANCE, *cells[1:]]
    assert all(0 < shot["saturation"] < 1 and 0 < shot["distance"] < 1 for shot in line["shots"])
    assert len({shot["saturation"] for shot in line["shots"]}) == 3
    assert chapter(study_of("nano", read_records(tmp_path / "records.jsonl", line["weights"], 2), 1, ""))
