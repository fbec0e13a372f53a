"""The folder of a Space: it holds the app and nothing else, and what the hub would refuse is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import make_space


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "space"
    assert make_space.main([str(folder)]) == 0
    return folder


def test_it_holds_what_runs_and_the_pictures_of_the_readme(space: Path) -> None:
    assert {path.name for path in space.iterdir()} == {
        ".gitattributes", "app.py", "requirements.txt", "README.md", "LICENSE", "opensora_demo", "assets", "docs",
    }  # fmt: skip
    assert (space / "assets" / "nano" / "dit-1.safetensors").stat().st_size > 1_000_000
    assert not list(space.rglob("*.pyc"))
    shown = [
        line.partition("(")[2].rstrip(")") for line in (space / "README.md").read_text().splitlines() if "![" in line
    ]
    assert shown
    assert all((space / picture).is_file() for picture in shown)


def test_one_for_zerogpu_has_its_python_and_torch(tmp_path: Path) -> None:
    assert make_space.main([str(tmp_path / "space"), "--zerogpu"]) == 0
    head = make_space.front_matter(tmp_path / "space" / "README.md")
    assert (head["python_version"], head["suggested_hardware"]) == (make_space.ZEROGPU_PYTHON, "zero-a10g")
    assert f"torch=={make_space.ZEROGPU_TORCH}\n" in (tmp_path / "space" / "requirements.txt").read_text()


def test_a_folder_with_something_in_it_is_left_alone(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(space.iterdir())
    assert make_space.main([str(space)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert sorted(space.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("README.md", "sdk_version: ", "sdk_version: 1", "sdk_version is 16."),
        ("README.md", "colorTo: blue", "colorTo: teal", "colorTo is teal"),
        ("README.md", 'python_version: "3.11"', "python_version: 3.11", "must be a text"),
        ("README.md", "short_description: ", "short_description: " + "very " * 12, "more than 60 characters"),
        ("README.md", "---\n", "", "sdk is None"),
        ("requirements.txt", "gradio==", "gradio>=", "gradio has no exact version"),
    ],
)
def test_what_is_wrong_is_said(space: Path, name: str, old: str, new: str, said: str) -> None:
    file = space / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    try:
        assert any(said in fault for fault in make_space.faults(space))
    finally:
        file.write_text(text)
    assert not list(make_space.faults(space))


def test_binary_files_go_by_lfs(space: Path) -> None:
    (space / "weights.bin").write_bytes(b"\0" * 11_000_000)
    faults = list(make_space.faults(space))
    (space / "weights.bin").unlink()
    assert [fault.partition(",")[0] for fault in faults] == ["weights.bin: over 10 MB", "weights.bin: binary"]
