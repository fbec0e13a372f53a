"""Events of a run -> the JSON the stage draws, and the sentences around it. Pure: no Gradio, no clock of its own.

Every picture of a step stays in the list, so that a value the browser skipped is never missed; Gradio sends only the
difference between two values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opensora_demo.catalog import ModelSpec
from opensora_demo.estimate import short
from opensora_demo.media import MIN_FILE_PX, jpeg_strip
from opensora_demo.types import Decoding, Encoded, Finished, GenerationRequest, Started, StepPreview
from opensora_demo.ui.runs import Loading, RunEvent, Waiting
from opensora_demo.ui.words import SUMMARY, knows_words

PREVIEW_PX = 48
View = dict[str, Any]


def unknown_sentence(model_id: str, unknown: Sequence[str], cut_tokens: int = 0) -> str:
    """What the model could not read, kindly; empty when it knew everything."""
    parts = []
    words = [word[:30] for word in unknown if any(c.isalnum() for c in word)]
    if words:
        names = ", ".join(words[:8]) + (" and more" if len(words) > 8 else "")
        parts.append(f"{model_id} does not know: {names}." + f" It was trained on {SUMMARY}." * knows_words(model_id))
    if cut_tokens:
        parts.append(f"The prompt is longer than {model_id} can read; its last {cut_tokens} words were left out.")
    return " ".join(parts)


def number(value: float) -> str:
    return f"{value:g}"


def chips(settings: Mapping[str, Any]) -> list[list[str]]:
    """(name, value) pairs in reading order for the line under a clip."""
    guidance = settings["guidance"]
    scales = guidance if isinstance(guidance, list) else [guidance]
    given = [word for word, key in (("first", "reference"), ("last", "last_frame")) if settings.get(key)]
    pairs = [
        ["model", settings["model"]],
        ["seed", str(settings["seed"])],
        ["steps", str(settings["steps"])],
        ["guidance", ", ".join(map(number, scales))],
    ]
    if "rule" in settings:
        rules = settings["rule"]
        pairs.append(["rule", ", ".join(rules) if isinstance(rules, list) else rules])
    if "resolution" in settings:
        pairs.append(["size", f"{settings['resolution']} {settings['aspect']}"])
    if given:
        pairs.append(["given", " and ".join(given) + " frame"])
    optional = [("image guidance", "image_guidance"), ("freedom", "edit")] if given else []
    for word, key in (*optional, ("motion", "motion_score")):
        if key in settings:
            pairs.append([word, number(settings[key])])
    if "lora" in settings:
        pairs.append(["LoRA", ", ".join(settings["lora"])])
    if settings["frames"] == 1:
        return [*pairs, ["length", "1 picture"]]
    length = settings["frames"] / settings["fps"]
    return [*pairs, ["fps", str(settings["fps"])], ["length", f"{length:.1f} s"]]


def took_words(settings: Mapping[str, Any]) -> str:
    """What a finished run took: "0.4 s, 0.9 GB"."""
    seconds = sum(settings["seconds"].values())
    peak = f", {settings['peak_gb']:.1f} GB" if "peak_gb" in settings else ""
    return f"{short(seconds)} s{peak}" if seconds < 100 else f"{seconds / 60:.0f} min{peak}"


def cell_px(height_px: int, width_px: int) -> list[int]:
    """Width and height of a clip as its file has it: small ones are enlarged by a whole number."""
    scale = max(-(-MIN_FILE_PX // min(height_px, width_px)), 1)
    return [scale * width_px, scale * height_px]


def file_data(file: Path) -> dict[str, Any]:
    """A file in the form Gradio's outputs copy to their cache and give an address."""
    return {"path": str(file), "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}


class RunView:
    """Folds the events of one run into the value of the stage."""

    def __init__(self, run: int, job: str, request: GenerationRequest, spec: ModelSpec) -> None:
        self._steps: list[View] = []
        self._model = spec.id
        self._view: View = {
            "run": run,
            "job": job,
            "phase": "loading",
            "text": "Starting",
            "prompt": request.prompt,
            "elapsed": 0.0,
            "left": None,
            "total": request.steps,
            "fps": request.fps,
            "frames": request.shape.frames,
            "latent": 1,
            "cell": cell_px(request.shape.height_px, request.shape.width_px),
            "chips": chips(request.settings()),
            "steps": self._steps,
            "clip": None,
            "note": "",
        }

    @property
    def steps(self) -> int:
        return len(self._steps)

    def value(self, elapsed: float) -> View:
        """What the stage draws now."""
        self._view["elapsed"] = round(elapsed, 2)
        return {**self._view, "steps": list(self._steps)}

    def news(self, elapsed: float) -> View:
        """The same in a few plain words, for a caller of the API."""
        view = self._view
        return {"state": view["text"], "step": self.steps, "steps": view["total"], "elapsed": round(elapsed, 2)}

    def add(self, event: RunEvent) -> None:
        """Take in one event; the next `value` shows it."""
        match event:
            case Loading():
                self._say("loading", "Loading the model")
            case Waiting():
                self._say("waiting", "Waiting for another run to finish")
            case Started():
                self._say("encoding", "Reading the prompt")
            case Encoded(unknown=unknown, cut_tokens=cut):
                self._view["note"] = unknown_sentence(self._model, unknown, cut)
                self._say("denoising", f"Denoising 0 of {self._view['total']}")
            case StepPreview():
                self._step(event)
            case Decoding(done=done, total=total):
                self._say("decoding", "Decoding" if total == 1 else f"Decoding {done} of {total}")
            case Finished():
                self._say("decoding", "Writing the file")

    def _say(self, phase: str, text: str) -> None:
        self._view |= {"phase": phase, "text": text}
        if phase not in ("denoising", "decoding"):
            self._view["left"] = None

    def _step(self, event: StepPreview) -> None:
        done, total = event.index + 1, event.total
        self._steps.append(
            {
                "i": done,
                "t": round(event.t, 3),
                "p": [jpeg_strip(event.previews[0], PREVIEW_PX)],
            }
        )
        self._view["latent"] = int(event.previews[0].shape[0])
        self._view["left"] = round(event.seconds / done * (total - done), 2)
        if done < total:
            self._say("denoising", f"Denoising {done} of {total}")
        else:
            self._say("decoding", "Decoding")

    def finish(self, file: Path, settings: Mapping[str, Any], elapsed: float) -> View:
        """The last value of a run that went well."""
        clip = {"file": file_data(file), "settings": dict(settings)}
        took = [["took", took_words(settings)]]
        self._view |= {"phase": "done", "text": "Done", "left": None, "clip": clip, "chips": self._view["chips"] + took}
        return self.value(elapsed)

    def end(self, phase: str, text: str, elapsed: float) -> View:
        """The last value of a run that was stopped or failed."""
        if phase == "stopped" and self._steps:
            text = f"Stopped after step {len(self._steps)} of {self._view['total']}"
        self._view |= {"phase": phase, "text": text, "left": None}
        return self.value(elapsed)
