"""The package as people install it: the command, the front door, what its metadata promises."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import opensora_demo
from opensora_demo import locations
from opensora_demo.__main__ import main
from opensora_demo.errors import RequestError
from opensora_demo.media import read_settings
from opensora_demo.request.events import Decoding, Event, Finished, Started, StepPreview
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.service.advisories import advisories, checked_on, open_advisories, release
from tests.unit.test_imports import ALLOWED, ROOT

WITH_GRADIO = {"gradio_client", "fastapi"}  # gradio's own, in the version that it was made with
NAMES = {"PIL": "pillow"}  # import name -> distribution, where they differ
OPTIONAL = {"matplotlib", "ray"}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line.partition("#")[0]) for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = requirements(PROJECT["dependencies"])
LOCK = requirements((ROOT / "requirements.txt").read_text().splitlines())


@pytest.mark.parametrize(("command", "says"), [(["serve", "--help"], "--port"), (["--help"], "opensora-demo serve")])
def test_the_command_has_a_page_and_a_command_line(
    command: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code == 0
    assert says in capsys.readouterr().out


def test_the_lock_names_what_the_metadata_names_within_its_ranges() -> None:
    assert set(LOCK) == set(RANGES)
    for name, locked in LOCK.items():
        ((operator, version),) = [(one.operator, one.version) for one in locked.specifier]
        assert operator == "==", name
        assert RANGES[name].specifier.contains(version), name
    assert str(RANGES["torch"].specifier) == str(LOCK["torch"].specifier)


def test_no_range_lets_a_known_fault_in() -> None:
    """The list is stored: `assets/advisories.json`."""
    for advisory in advisories():
        if advisory.fixed is None:  # nothing to update to: what is at fault is not called
            for name in re.findall(r"\w+_\w+", advisory.what):
                assert not [f for f in (ROOT / "opensora_demo").rglob("*.py") if name in f.read_text("utf-8")], name
            continue
        allowed = RANGES[canonicalize_name(advisory.package)].specifier
        below = [one for one in allowed if one.operator in (">=", "==")]
        assert below, advisory.package
        assert all(release(one.version) >= release(advisory.fixed) for one in below), advisory
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", checked_on())


def test_what_is_installed_is_compared_with_the_list() -> None:
    assert open_advisories(lambda name: str(LOCK[canonicalize_name(name)].specifier).removeprefix("==")) == []
    old = {"pillow": "12.2.0", "torch": "2.9.1+cpu", "gradio": "6.30.9rc1"}
    found = {(a.package, a.fixed) for a in open_advisories(old.get)}
    assert found == {("pillow", "12.3.0"), ("torch", "2.10.0"), ("gradio", "6.31.0")}


def test_what_is_imported_is_declared() -> None:
    imported = {NAMES.get(name, name) for names in ALLOWED.values() for name in names} - WITH_GRADIO - OPTIONAL
    assert {canonicalize_name(name) for name in imported} <= set(RANGES)


def test_the_front_door_is_open_and_cheap() -> None:
    script = (
        "import sys, opensora_demo; opensora_demo.__version__; dir(opensora_demo);"
        "print([name for name in ('torch', 'numpy', 'gradio', 'transformers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert opensora_demo.__all__ == ["MODELS", "Video", "__version__", "compare", "generate", "load"]
    for name in opensora_demo.__all__:
        assert getattr(opensora_demo, name) is not None
        assert name in dir(opensora_demo)
    with pytest.raises(AttributeError, match="colour"):
        opensora_demo.colour  # noqa: B018


def test_a_clip_from_python_and_the_events_on_its_way(nano: ModelBundle) -> None:
    seen: list[Event] = []
    video = opensora_demo.generate(nano, "a red ball", seed=3, steps=2, frames=1, on_event=seen.append)
    assert video.frames.shape == (1, 128, 128, 3)
    assert video.settings["seed"] == 3
    assert (video.settings["model"], video.settings["version"]) == ("nano", opensora_demo.__version__)
    assert {Started, StepPreview, Decoding, Finished} <= {type(event) for event in seen}
    both = opensora_demo.compare(
        nano, "a red ball", seed=3, steps=2, frames=1, guidance=(1, video.settings["guidance"])
    )
    other, same = (np.abs(clip.frames.astype(int) - video.frames).max() for clip in both)
    assert same <= 1 < other  # a batch of three rounds otherwise than one of two


def test_a_clip_from_python_takes_a_picture(nano: ModelBundle, tmp_path: Path) -> None:
    first = tmp_path / "first.png"
    Image.new("RGB", (64, 64), "navy").save(first)
    with_it, without = (
        opensora_demo.generate(nano, "a ball", seed=3, steps=2, frames=1, reference=file) for file in (first, None)
    )
    assert with_it.settings["reference"] is True
    assert (with_it.frames != without.frames).any()


def test_wrong_settings_from_python_get_a_sentence(nano: ModelBundle) -> None:
    with pytest.raises(RequestError, match="compare makes several"):
        opensora_demo.generate(nano, "a red ball", guidance=[1, 2])
    with pytest.raises(RequestError, match="is not a setting"):
        opensora_demo.generate(nano, "a red ball", sharpness=3)
    with pytest.raises(RequestError, match="nano-dit"):
        opensora_demo.load("nan")


@pytest.mark.slow
def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert 8 <= len(example.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    settings = {file.name: read_settings(file) for file in tmp_path.glob("*.mp4")}
    assert settings["ball.mp4"]["seed"] == 7  # type: ignore[index]
    assert {entry["guidance"] for name, entry in settings.items() if name.startswith("star")} == {1, 2, 4}  # type: ignore[index]


def test_the_version_has_its_chapter_in_the_changelog() -> None:
    chapters = re.findall(r"^## ([\d.]+)", (ROOT / "docs" / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert chapters[0] == opensora_demo.__version__


def test_assets_lie_beside_the_package_or_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.assets_dir() == ROOT / "assets"
    monkeypatch.setattr(locations, "__file__", str(tmp_path / "site-packages" / "opensora_demo" / "locations.py"))
    (tmp_path / "site-packages" / "opensora_demo" / "assets").mkdir(parents=True)
    assert locations.assets_dir() == tmp_path / "site-packages" / "opensora_demo" / "assets"
