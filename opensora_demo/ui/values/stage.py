"""Events of a run -> the JSON the stage draws, and the sentences around it. No Gradio.

Every picture of a step stays in the list, so that a value the browser skipped is never missed; Gradio sends only the
difference between two values. While a run goes on, pictures take a small share of its time (`preview.Budget`); those
that were left out are made once it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from opensora_demo.catalog import ModelSpec
from opensora_demo.media import MIN_FILE_PX, jpeg_strip, sheet
from opensora_demo.messages import Message, Param, in_a_row, listed, message, plain, render
from opensora_demo.preview import LOSSLESS_PX, Budget
from opensora_demo.request import settings as table
from opensora_demo.request.events import DecodedFrames, Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.cost.words import short
from opensora_demo.service.engine import Loading, Quiet, RunEvent, Waiting
from opensora_demo.service.links import link_query, not_in_link
from opensora_demo.service.outputs import Sheet
from opensora_demo.text.labels import says_something
from opensora_demo.toy.chips import knows_words
from opensora_demo.toy.prompt_intent import Mark
from opensora_demo.ui.values.common import FileValue, MessageValue, Phase, RunValue, said, said_or_none
from opensora_demo.ui.values.verdict import VerdictValue, verdict

PREVIEW_PX = 48
NOISE_QUALITY = 60  # of the JPEG: noise is not looked at closely, and takes many bytes
Shown = Literal["noise", "guess", "latent"]
MAX_UNKNOWN = 8  # words that are read out
MAX_REFINED = 3  # prompts, of a comparison over seeds


class StepValue(TypedDict):
    """One step: `index` from 1, `noise_level` from 1 to 0 before it. The rest are pictures of its latent frames side by
    side, null until they are made: `noise` the clip before the step, `guess` what it is expected to become, `latent`
    the same with a square for each position (null for good where the guess is shown so anyway)."""

    index: int
    noise_level: float
    noise: str | None
    guess: str | None
    latent: str | None


class LinkValue(TypedDict):
    """What "Copy link" copies behind the page's address, and what is to be said of what this cannot carry."""

    query: str
    note: MessageValue | None


class ClipValue(TypedDict):
    """A finished clip: its file, the settings inside it, and what is seen in it, where a reader can tell."""

    file: FileValue
    settings: dict[str, Any]
    verdict: VerdictValue | None


class SceneValue(TypedDict):
    """One of several scenes of a clip: the second at which its own frames begin, its words, and what is seen in it."""

    start: float
    prompt: str
    verdict: VerdictValue | None


class RuleValue(TypedDict):
    """A rule of guidance that the model has."""

    name: str
    title: MessageValue


class ChipValue(TypedDict):
    """A word and a value under a clip."""

    name: MessageValue
    value: MessageValue


class ExampleValue(TypedDict):
    """A clip made before, and one frame of it."""

    file: FileValue
    poster: FileValue
    verdict: VerdictValue | None
    prompt: str
    seed: int
    settings: dict[str, Any]
    chips: list[ChipValue]


class ExamplesValue(TypedDict):
    """The stage before the first run."""

    phase: Literal["idle"]
    examples: list[ExampleValue]


class SheetValue(TypedDict):
    """`count` frames of `size` (height, width) in pixels in one picture, `across` in a line."""

    file: FileValue
    across: int
    size: tuple[int, int]
    count: int


class DecodedValue(TypedDict):
    """Frames of the clip from `first` on, which are decoded while others are not."""

    first: int
    sheet: SheetValue


class StageValue(RunValue):
    """A run of one clip: `total` is the steps of all its `scenes` (none where it has one), `latent` the number of
    latent frames, `cell` width and height of the clip in its file, `unknown` are words that the model could not read.
    `settings` are what was asked for, `link` the address that opens the form with them; `scales` from the lowest to the
    highest and `rules` are what a branch may be guided by. The estimates are of `frames` frames of the clip, of which
    `start` is the first; `decoded` are those that are there before the whole clip is, in order and from the first on.

    `history` are the finished runs that a page loaded anew gets back.
    """

    total: int
    fps: int
    frames: int
    latent: int
    cell: tuple[int, int]
    chips: list[ChipValue]
    settings: dict[str, Any]
    link: LinkValue
    scales: tuple[float, float]
    rules: list[RuleValue]
    scenes: list[SceneValue]
    steps: list[StepValue]
    start: int
    decoded: list[DecodedValue]
    clip: ClipValue | None
    note: MessageValue | None
    unknown: list[str]
    history: NotRequired[list[StageValue]]


def unread(unknown: Sequence[str]) -> list[str]:
    """Tokens that a model does not know, without the punctuation among them."""
    return [word[:30] for word in unknown if says_something(word)]


def reading_note(
    model_id: str, unknown: Sequence[str], cut_tokens: int = 0, refined: Collection[str] = ()
) -> Message | None:
    """What the model could not read, kindly, and what it read in place of a prompt without a place, which may be
    another for each seed; None when it read what was typed."""
    notes = []
    words = unread(unknown)
    if words:
        names: Param = tuple(words[:MAX_UNKNOWN])
        names = message("note.words_more", words=names) if len(words) > MAX_UNKNOWN else names
        notes.append(message("note.unknown", model=model_id, words=names))
        notes += [message("note.trained_on")] * knows_words(model_id)
    if cut_tokens:
        notes.append(message("note.cut", model=model_id, count=cut_tokens))
    if refined:
        prompts = [message("note.quoted", text=prompt) for prompt in list(refined)[:MAX_REFINED]]
        notes.append(message("note.refined", model=model_id, prompts=listed(*prompts)))
    return in_a_row(*notes) if notes else None


def of_scene(event: Encoded | StepPreview, text: Message) -> Message:
    """What a run says, and of which of its scenes."""
    if event.scenes == 1:
        return text
    return message("run.of_scene", text=text, scene=event.scene + 1, scenes=event.scenes)


def scene_values(request: GenerationRequest) -> list[SceneValue]:
    if request.scenes == 1:
        return []
    starts = [round(first / request.fps, 3) for first, _ in request.scene_frames]
    prompts = [request.scene(k).prompt for k in range(request.scenes)]
    return [{"start": start, "prompt": text, "verdict": None} for start, text in zip(starts, prompts, strict=True)]


LORA_PLACE = 10


def chips(settings: Mapping[str, Any]) -> list[ChipValue]:
    """The line under a clip, in reading order."""
    shown = [
        (chip.place, chip_value(chip.title, text))
        for setting in table.SETTINGS
        if (chip := setting.chip) and (text := (chip.text or table.plain_text(setting.name))(settings)) is not None
    ]
    if "lora" in settings:
        shown.append((LORA_PLACE, chip_value(message("label.chip.lora"), ", ".join(settings["lora"]))))
    return [chip for _, chip in sorted(shown, key=lambda placed: placed[0])]


def chip_value(name: Message, value: Message | str) -> ChipValue:
    return {"name": said(name), "value": said(plain(value) if isinstance(value, str) else value)}


def took_words(settings: Mapping[str, Any]) -> Message:
    """What a finished run took, and in which numbers: "0.4 s, 0.9 GB, bfloat16"."""
    seconds = sum(settings["seconds"].values())
    minutes = message("note.time.min", n=round(seconds / 60))
    time = message("note.time.s", n=short(seconds)) if seconds < 100 else minutes
    peak = (f"{settings['peak_gb']:.1f} GB",) if "peak_gb" in settings else ()
    kinds = dict.fromkeys(settings.get("precision", {}).values())
    return listed(time, *peak, *(plain(kind) for kind in kinds if kind != "float32"))


def cell_px(height_px: int, width_px: int) -> tuple[int, int]:
    """Width and height of a clip as its file has it: small ones are enlarged by a whole number."""
    scale = max(-(-MIN_FILE_PX // min(height_px, width_px)), 1)
    return scale * width_px, scale * height_px


def file_value(file: Path) -> FileValue:
    """A file of the folder of outputs, which `ClipForms` sends under its name."""
    return {"orig_name": file.name, "url": f"clips/{file.name}"}


def sheet_value(sheet: Sheet) -> SheetValue:
    return {"file": file_value(sheet.file), "across": sheet.across, "size": sheet.size_px, "count": sheet.count}


def link_value(settings: Mapping[str, Any]) -> LinkValue:
    return {"query": link_query(settings), "note": said_or_none(not_in_link(settings))}


def latent_strip(frames: Frames) -> str:
    """A latent's own picture (t, h, w, 3) as one image: exact where it is small."""
    if frames.shape[1] * frames.shape[2] <= LOSSLESS_PX:
        return sheet(frames[None], lossless=True)
    return jpeg_strip(frames, PREVIEW_PX)


class RunView:
    """Folds the events of one run into the value of the stage; for a caller of the API without `pictures`."""

    def __init__(
        self,
        run: int,
        job: str,
        request: GenerationRequest,
        spec: ModelSpec,
        *,
        pictures: bool = True,
        blind: Message | None = None,
    ) -> None:
        """`blind` says why there will be no pictures."""
        self._model = spec.id
        self._starts = [end - request.shape.frames for _, end in request.scene_frames]  # of what each scene decodes
        self._pictures = pictures
        self._blind = blind
        self._budget = Budget()
        self._missing: dict[int, list[tuple[Shown, Callable[[], str]]]] = {}  # by the step's place in the list
        settings = request.settings()
        self._value: StageValue = {
            "run": run,
            "job": job,
            "phase": "loading",
            "text": said(message("run.starting")),
            "prompt": request.prompt,
            "elapsed": 0.0,
            "left": None,
            "kept": False,
            "total": request.stop_step or request.steps * request.scenes,
            "fps": request.fps,
            "frames": request.shape.frames,
            "latent": 1,
            "cell": cell_px(request.shape.height_px, request.shape.width_px),
            "chips": chips(settings),
            "settings": settings,
            "link": link_value(settings),
            "scales": (spec.limits.guidance.low, spec.limits.guidance.high),
            "rules": [{"name": rule, "title": said(table.RULE_MESSAGES[rule])} for rule in spec.limits.rules],
            "scenes": scene_values(request),
            "steps": [],
            "start": self._starts[0],
            "decoded": [],
            "clip": None,
            "note": said_or_none(blind),
            "unknown": [],
        }
        self._text = self._before = message("run.starting")
        self._unknown: dict[str, None] = {}
        self._refined: dict[str, None] = {}
        self._note: Message | None = blind
        self._reused = 0  # steps that were not computed

    @property
    def steps(self) -> int:
        return len(self._value["steps"])

    def value(self, elapsed: float, *, kept: bool = False) -> StageValue:
        """What the stage draws now."""
        self._value["elapsed"], self._value["kept"] = round(elapsed, 2), kept
        return {**self._value, "steps": list(self._value["steps"]), "decoded": list(self._value["decoded"])}

    def news(self, elapsed: float) -> dict[str, Any]:
        """The same in a few plain words, for a caller of the API."""
        return {
            "state": render(self._text),
            "step": self.steps,
            "steps": self._value["total"],
            "elapsed": round(elapsed, 2),
        }

    def add(self, event: RunEvent) -> None:
        """Take in one event; the next `value` shows it."""
        match event:
            case Loading():
                self._say("loading", message("run.loading"))
            case Waiting():
                self._say("waiting", event.text)
                self._value["left"] = None if event.left_s is None else round(event.left_s, 1)
            case Quiet(on=on, text=text):
                self._hush(on, text)
            case Started():
                self._say("encoding", message("run.encoding"))
            case Encoded(unknown=unknown, cut_tokens=cut, refined=refined):
                self._refined |= {} if refined is None else {refined: None}
                if unread(unknown) or cut or event.scene == 0:  # what an earlier scene could not read stays said
                    self._unknown |= dict.fromkeys(unread(unknown))
                    self._note = reading_note(self._model, [*self._unknown], cut, self._refined) or self._blind
                    self._value["note"] = said_or_none(self._note)
                    self._value["unknown"] = [*self._unknown][:MAX_UNKNOWN]
                total = self._value["total"] // event.scenes
                self._say("denoising", of_scene(event, message("run.denoising", step=0, total=total)))
            case StepPreview():
                self._step(event)
            case DecodedFrames(end=end, total=total):
                self._say("decoding", message("run.decoding_frames", done=end, total=total))
            case Decoding(done=done, total=total):
                part = message("run.decoding_of", done=done, total=total)
                self._say("decoding", message("run.decoding") if total == 1 else part)
            case Finished():
                if self._reused:
                    counted = message("note.reused_steps", count=self._reused, total=self._value["total"])
                    self._value["note"] = said(in_a_row(*([] if self._note is None else [self._note]), counted))
                self._say("decoding", message("run.writing"))

    def show(self, first: int, sheet: Sheet) -> None:
        """Frames from `first` on are decoded, and in a picture."""
        self._value["decoded"].append({"first": first, "sheet": sheet_value(sheet)})

    def _say(self, phase: Phase, text: Message) -> None:
        self._text = text
        self._value["phase"], self._value["text"] = phase, said(text)
        if phase not in ("denoising", "decoding"):
            self._value["left"] = None

    def _hush(self, on: bool, text: Message) -> None:
        """What was said comes back once the server answers again."""
        self._before, text = (self._text, text) if on else (self._text, self._before)
        self._say(self._value["phase"], text)

    def _step(self, event: StepPreview) -> None:
        at, done, total = event.place, event.place + 1, self._value["total"]
        self._value["start"] = self._starts[event.scene]
        self._reused += event.reused[:1] == (True,)
        self._value["steps"].append(
            {"index": done, "noise_level": round(event.t, 3), "noise": None, "guess": None, "latent": None}
        )
        if self._pictures and event.previews:
            self._missing[at] = self._makers(event)
            if self._budget.allows(event.seconds):
                one = at > 0
                self._budget.take(lambda: self._make(at, one=one))
        self._value["left"] = round(event.seconds / done * (total - done), 2)
        step, of = event.index + 1, total // event.scenes
        if step < of:
            self._say("denoising", of_scene(event, message("run.denoising", step=step, total=of)))
        else:
            self._say("decoding", of_scene(event, message("run.decoding")))

    def _makers(self, event: StepPreview) -> list[tuple[Shown, Callable[[], str]]]:
        """How the pictures of a step are made, the most telling first."""

        previews, noisy = event.previews, event.noisy  # not the event: it holds more

        def guess() -> str:
            self._value["latent"] = len(previews[0])
            return jpeg_strip(previews[0], PREVIEW_PX)

        makers: list[tuple[Shown, Callable[[], str]]] = [("guess", guess)]
        if noisy:
            makers.append(("noise", lambda: jpeg_strip(noisy[0], PREVIEW_PX, NOISE_QUALITY, fine=False)))
        if (latent := event.latent) is not None:
            makers.append(("latent", lambda: latent_strip(latent())))
        return makers

    def _make(self, at: int, *, one: bool = False) -> None:
        """The pictures of a step that are missing, or `one` of them. A step that was told keeps what it has."""
        step = self._value["steps"][at]
        pictures: dict[Shown, str | None] = {"noise": step["noise"], "guess": step["guess"], "latent": step["latent"]}
        later: list[tuple[Shown, Callable[[], str]]] = []
        for name, make in self._missing.pop(at):
            if one and name != "guess":
                later.append((name, make))
            else:
                pictures[name] = make()
        if later:
            self._missing[at] = later
        # A new dictionary: the old one is on its way to the page.
        self._value["steps"][at] = StepValue(
            index=step["index"],
            noise_level=step["noise_level"],
            noise=pictures["noise"],
            guess=pictures["guess"],
            latent=pictures["latent"],
        )

    def complete(self, elapsed: float) -> StageValue:
        """Once the run is over: all pictures that its time had no room for."""
        for at in sorted(self._missing):
            self._make(at)
        return self.value(elapsed)

    def finish(
        self, file: Path, settings: Mapping[str, Any], elapsed: float, marks: Sequence[Mapping[str, Mark] | None] = ()
    ) -> StageValue:
        """The last value of a run that went well; `marks` are of each scene."""
        self._say("done", message("run.done"))
        seen = [None if one is None else verdict(one) for one in marks]
        scenes = self._value["scenes"]
        self._value["decoded"] = []  # the clip has them
        self._value["clip"] = {
            "file": file_value(file),
            "settings": dict(settings),
            "verdict": seen[0] if seen and not scenes else None,
        }
        if seen:
            self._value["scenes"] = [{**scene, "verdict": one} for scene, one in zip(scenes, seen, strict=False)]
        self._value["chips"] = [
            *self._value["chips"],
            chip_value(message("label.chip.took"), took_words(settings)),
        ]
        return self.value(elapsed)

    def end(self, phase: Phase, text: Message, elapsed: float) -> StageValue:
        """The last value of a run that was stopped or failed."""
        if text.code == "run.stopped" and self.steps:
            text = message("run.stopped_after", step=self.steps, total=self._value["total"])
        self._say(phase, text)
        return self.value(elapsed)
