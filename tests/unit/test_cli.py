"""The command line: one JSON line on stdout, progress on stderr, one sentence for what cannot be run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image

from opensora_demo import __version__, cli
from opensora_demo.__main__ import main as program
from opensora_demo.cli import gathered, main
from opensora_demo.errors import RequestError
from opensora_demo.media import read_settings
from opensora_demo.messages import message
from opensora_demo.runtime.cost.fits import Fit
from opensora_demo.service.local import LocalEngine, LocalJob


@pytest.mark.slow
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
        "version": __version__,
    }
    recorded = read_settings(out)
    assert recorded is not None
    assert recorded == recorded | report["settings"] | {"seconds": report["seconds"], "unknown": ["dragon"]}
    assert "denoising 3/3" in captured.err
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9
        assert container.streams.video[0].average_rate == 12


@pytest.mark.slow
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
        (["generate", "x", "--reference", "/nowhere.png"], "reference: there is no file nowhere.png"),
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


def test_runs_for_the_night_are_queued_made_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENSORA_GALLERY", str(tmp_path / "storage"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n# not this\n\n\u84dd\u8272\u661f\u661f\n", "utf-8")

    def told(*argv: str, status: int = 0) -> Any:
        assert main(["queue", *argv]) == status
        return json.loads(capsys.readouterr().out)

    settings = ["--steps", "1", "--frames", "1", "--seed", "5"]
    added = told("add", str(prompts), *settings)
    assert [(run["prompt"], run["seed"], run["state"]) for run in added] == [
        ("a red ball", 5, "queued"),
        ("\u84dd\u8272\u661f\u661f", 5, "queued"),
    ]
    assert told("remove", added[1]["id"]) == {"removed": 1}
    (made,) = told("run")
    assert made["state"] == "done"
    found = read_settings(tmp_path / "storage" / "clips" / made["clip"])
    assert found is not None
    assert (found["prompt"], found["seed"], found["frames"]) == ("a red ball", 5, 1)
    assert [run["state"] for run in told("list")] == ["done"]
    assert told("remove", "all") == {"removed": 1}
    prompts.write_bytes(b"\xff\xfe")
    for argv, said in (
        (["add", str(prompts)], "not UTF-8"),
        (["add", str(tmp_path / "none.txt")], "No such file"),
        (["add", str(prompts), "--gallery", "off"], "gallery: is off"),
    ):
        assert main(["queue", *argv]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_models_and_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
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
    few = {name: cli.MODELS[name] for name in ("nano", "opensora-1.2", "debug-2.0")}  # what each costs is counted
    monkeypatch.setattr(cli, "MODELS", few)
    monkeypatch.setenv("OPENSORA_ONLY", "nano-dit")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setattr(cli, "what_fits", lambda spec, _: [Fit(size=spec.limits.sizes[0], frames=51, most=102)])
    assert main(["doctor", "--attention", "plain", "--precision", "bfloat16", "--fits"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["attention"] == "plain"
    assert "attention      plain: plain products, which hold all scores" in told.err
    assert found["in_bfloat16"] == {"nano": ["network", "codec"]}
    assert "precision      bfloat16: everywhere; nano's network and codec" in told.err
    assert found["memory_bytes"] > 1e9
    assert f"cpu, {found['memory_bytes'] / 1e9:.0f} GB, {found['threads']} threads" in told.err
    assert found["usual_clip"]["opensora-1.2"]["longest_frames"] == {"240p": 51}
    assert "fits here: 240p: up to 51 frames" in told.err
    assert set(found["optional"]) == {"torchao", "bitsandbytes"}
    assert (found["server"]["models"], found["server"]["public"]) == (["nano", "nano-dit"], True)
    assert "0.0.0.0:7860, for others too; 2 models; downloads never, metrics off" in told.err
    assert found["advisories"] == []
    assert "known faults   0 of the list of 20" in told.err
    assert found["version"] == __version__
    assert set(found["models"]) == {"nano", "opensora-1.2"}
    assert found["models"]["nano"] == "ready"
    assert "lacks its transformer" in found["models"]["opensora-1.2"]
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


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


@pytest.mark.slow
def test_adherence_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["adherence", "--prompts", "2", "--guidance", "1", "4", "--steps", "2", "--reader-clips", "4"])
    captured = capsys.readouterr()
    assert code == 0
    report = json.loads(captured.out)
    assert set(report["guidance"]) == {"1", "4"}
    assert {"shape", "colour", "motion", "background", "all four"} <= set(report["guidance"]["4"])
    assert "| guidance | shape | colour | motion | background | all four |" in captured.err


@pytest.mark.parametrize(
    "typed",
    [
        ["a red ball", "--guidance", "1", "2", "4"],
        ["--guidance", "1", "2", "4", "a red ball"],
        ["--guidance", "1, 2, 4", "a red ball"],
        ["--guidance=1,2,4", "a red ball"],
        ["--guidance", "1，2、4", "--rule", "plain", "apg", "a red ball"],
        ["--rule", "plain,apg", "a red ball", "--guidance", "1", "2", "..", "4"],
    ],
)
def test_a_list_is_typed_as_on_the_page(typed: list[str]) -> None:
    args = cli._compared(cli._parser().parse_args(gathered(["compare", *typed, "--out", "x.mp4"])))
    assert args.prompt == "a red ball"
    assert args.guidance == ([1, 2, 3, 4] if ".." in typed else [1, 2, 4])
    assert args.rule == (["plain", "apg"] if "--rule" in typed else None)


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "ascii", "utf-8"])
def test_pipes_of_any_encoding_take_what_is_said(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding=encoding, write_through=True))
    cli._answer({"prompt": "红色的球 · 🔴", "out": "a\udcff.mp4"} if encoding != "utf-8" else {"prompt": "红色的球"})
    text = pipe.getvalue().decode(encoding)
    assert json.loads(text)["prompt"].startswith("红色的球")
    assert ("红" in text) == (encoding == "utf-8")
    main(["models"])


def test_a_stream_that_lacks_a_character_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="cp1252", write_through=True))
    monkeypatch.setattr(cli, "main", lambda arguments: print("红 ball") or 0)
    assert program(["models"]) == 0
    assert pipe.getvalue().split() == [b"\\u7ea2", b"ball"]


@pytest.mark.slow
def test_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opensora_demo", "models"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)


@pytest.mark.slow
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


def test_control_c_cancels_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs: list[LocalJob[Any]] = []
    submit = LocalEngine.submit

    def noted(engine: LocalEngine, *args: Any, **options: Any) -> LocalJob[Any]:
        jobs.append(submit(engine, *args, **options))
        return jobs[-1]

    def interrupted(text: str, **options: Any) -> None:
        if text.startswith("denoising"):
            raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "submit", noted)
    monkeypatch.setattr(cli, "_say", interrupted)
    assert main(["generate", "a red ball", "--steps", "3", "--out", str(tmp_path / "x.mp4")]) == 130
    assert [job.state for job in jobs] == ["cancelled"]
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("typed", "shared"), [("auto", "stored"), ("bfloat16", "bfloat16")])
def test_processes_that_share_a_run_do_not_each_measure_a_precision(
    typed: str, shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They might come to different answers, and one of them would compute in other numbers."""

    class Two:
        first = True

        def agree(self, make: Any) -> Any:
            return make()

        def layout(self, *_: Any) -> Any:
            return object()

    @contextmanager
    def joined(_: Any) -> Iterator[Two]:
        yield Two()

    found: list[str] = []

    def run(spec: Any, request: Any, options: Any, layout: Any) -> Any:
        found.append(options.precision)
        raise RequestError("out", message("request.missing"))

    monkeypatch.setattr(cli, "joined", joined)
    monkeypatch.setattr(cli, "_run", run)
    assert main(["generate", "a ball", "--precision", typed, "--out", str(tmp_path / "a.mp4")]) != 0
    assert found == [shared]
