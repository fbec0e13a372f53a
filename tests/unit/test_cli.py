"""The command line: one JSON line on stdout, progress on stderr, one sentence for what cannot be run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from opensora_demo.cli import main
from opensora_demo.media import read_settings


def test_generate_writes_a_clip_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clip.mp4"
    image = tmp_path / "first.png"
    Image.new("RGB", (80, 80), "blue").save(image)
    code = main(
        [
            "generate",
            "a red ball and a dragon",
            "--steps",
            "3",
            "--guidance",
            "2.5",
            "--fps",
            "12",
            "--frames",
            "9",
            "--seed",
            "7",
            "--negative",
            "blue",
            "--reference",
            str(image),
            "--out",
            str(out),
        ]
    )
    captured = capsys.readouterr()
    assert code == 0
    lines = captured.out.strip().splitlines()
    assert len(lines) == 1
    report = json.loads(lines[0])
    assert report["out"] == str(out)
    assert (report["model"], report["seed"], report["unknown"]) == ("nano", 7, ["dragon"])
    assert set(report["seconds"]) == {"text", "denoise", "decode"}
    assert report["settings"] == {
        "model": "nano",
        "prompt": "a red ball and a dragon",
        "negative": "blue",
        "fps": 12,
        "frames": 9,
        "steps": 3,
        "guidance": 2.5,
        "seed": 7,
        "reference": True,
    }
    assert read_settings(out) == report["settings"]
    assert "denoising 3/3" in captured.err
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9
        assert container.streams.video[0].average_rate == 12


def test_compare_makes_one_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid.mp4"
    assert (
        main(["compare", "a red ball", "--guidance", "1", "4", "--steps", "2", "--seed", "1", "--out", str(out)]) == 0
    )
    assert json.loads(capsys.readouterr().out)["settings"]["guidance"] == [1.0, 4.0]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.width > 2 * 256
        assert sum(1 for _ in container.decode(video=0)) == 17


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", " "], "prompt: must say what to draw"),
        (["generate", "x", "--steps", "0"], "steps: must lie between 1 and 100, not 0"),
        (["generate", "x", "--guidance", "nan"], "guidance: must be a number, not nan"),
        (["generate", "x", "--fps", "1e9"], "fps: must lie between 4 and 24"),
        (["generate", "x", "--frames", "4.5"], "frames: must be a whole number"),
        (["generate", "x", "--seed", "-7"], "seed: must lie between 0 and 4294967295"),
        (["generate", "x", "--model", "nope"], "model: must be one of nano"),
        (["generate", "x", "--reference", "/nowhere.png"], "reference: this is not a readable"),
        (["compare", "x", "--guidance", "1", "1"], "guidance: must not name a value twice"),
    ],
)
def test_refusals_are_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "x.mp4")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {sentence}" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_an_mp4_in_a_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for out in (tmp_path / "x.gif", tmp_path / "no" / "x.mp4", tmp_path / "folder.mp4"):
        assert main(["generate", "a ball", "--steps", "1", "--out", str(out)]) == 2
        assert "error: out: " in capsys.readouterr().err


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["nano"] | {"title": ""} == {
        "id": "nano",
        "title": "",
        "text": "cross-attention",
        "runs_here": True,
        "why_not": "",
    }
    assert not rows["opensora-2.0"]["runs_here"]
    assert rows["opensora-2.0"]["text"] == "token concatenation"
    assert "lacks its transformer (hpcai-tech/Open-Sora-v2/Open_Sora_v2.safetensors)" in rows["opensora-2.0"]["why_not"]
    assert not any(name.startswith("debug") for name in rows)
    assert main(["models", "--all"]) == 0
    assert "debug-2.0" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["memory_bytes"] > 1e9
    assert f"cpu, {found['memory_bytes'] / 1e9:.0f} GB, {found['threads']} threads" in told.err
    assert set(found["optional"]) == {"torchao", "bitsandbytes"}
    assert found["models"]["nano"] == "ready"
    assert "lacks its transformer" in found["models"]["opensora-1.2"]
    assert found["packages"]["torch"].startswith("2.13.0")


def test_a_debug_model_with_both_frames_and_its_own_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    Image.effect_noise((48, 32), 64).convert("RGB").save(picture)
    out = tmp_path / "clip.mp4"
    frames = ["--reference", str(picture), "--last-frame", str(picture), "--frames", "9"]
    own = ["--image-guidance", "2", "--motion-score", "6", "--steps", "2", "--aspect", "2:3"]
    code = main(["generate", "a ball", "--model", "debug-2.0", *frames, *own, "--out", str(out)])
    assert code == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["rule"] == "oscillating"
    assert settings["image_guidance"] == 2
    assert settings["motion_score"] == 6
    assert settings["last_frame"] is True
    assert (settings["resolution"], settings["aspect"]) == ("32px", "2:3")
    assert out.stat().st_size > 0


def test_settings_a_model_does_not_have_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "clip.mp4")
    for option, field in (("--rule", "rule"), ("--image-guidance", "image_guidance"), ("--edit", "edit")):
        assert main(["generate", "a ball", option, "0.5", "--out", out]) == 2
        assert f"error: {field}: " in capsys.readouterr().err


def test_adherence_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["adherence", "--prompts", "2", "--guidance", "1", "4", "--steps", "2", "--reader-clips", "4"])
    captured = capsys.readouterr()
    assert code == 0
    report = json.loads(captured.out)
    assert set(report["guidance"]) == {"1", "4"}
    assert {"shape", "colour", "motion", "background", "all four"} <= set(report["guidance"]["4"])
    assert "| guidance | shape | colour | motion | background | all four |" in captured.err


def test_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opensora_demo", "models"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)


def test_compare_takes_several_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid.mp4"
    arguments = [
        "compare",
        "a red ball",
        "--steps",
        "2",
        "--guidance",
        "4",
        "--rule",
        "plain",
        "apg",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["rule"] == ["plain", "apg"]
    assert read_settings(out) is not None
