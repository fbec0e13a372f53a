"""The table of settings: everything a person may choose, one literal each.

Read from it are the parser (`request.parse`), the settings inside files (`GenerationRequest.settings`), forms and
links (`service.forms`, `service.links`), the page's controls (`ui.controls`), the chips under a clip
(`ui.values.stage`), the parameters of the API (`ui.api`) and the options of the command line (`cli`). A new setting is
a literal here, two messages (`label.NAME`, `label.NAME.hint`), a field of `GenerationRequest` and its use in a family.

Everybody reads `SETTINGS` from this module when it is needed, so that a test may add a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from opensora_demo.messages import Message, listed, message, plain
from opensora_demo.request.curve import curve_text
from opensora_demo.request.limits import (
    ALL_RULES,
    REFINEMENTS,
    STEP_CACHINGS,
    VIDEO_USES,
    Limits,
    Range,
    Refinement,
    Rule,
    StepCaching,
    VideoUse,
)
from opensora_demo.request.scenes import named_scenes

if TYPE_CHECKING:
    from opensora_demo.request.request import GenerationRequest

Written = Mapping[str, Any]  # settings as files and the API spell them


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A line of at most `Limits.prompt_chars` characters."""

    required: bool = False
    max_lines: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number within a `Range`; `several` where a comparison takes a list of them. An `optional` one may be nothing,
    whatever the default of its range."""

    whole: bool = False
    several: bool = False
    optional: bool = False
    refusal: str = "request.between"  # the message for a number outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the values of `Choices`; `several` and `optional` as above."""

    whole: bool = False
    several: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve over the steps (`request.curve`): a text of points, and a drawing of them."""


@dataclass(frozen=True, slots=True)
class Given:
    """A file, which is read and cropped once the size of the clip is known. The settings in files name it, and do not
    hold it."""


@dataclass(frozen=True, slots=True)
class Picture(Given):
    """A PNG, JPEG, WebP, AVIF or GIF (`pictures.read_reference`)."""


@dataclass(frozen=True, slots=True)
class VideoFile(Given):
    """An mp4, MOV, WebM, GIF or WebP (`media.read_video`)."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole number; nothing, or -1, is a random one. Where it is `optional` nothing is none."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """The id of an entry of the catalog. It decides the limits of all the others."""


Kind = Text | Number | Choice | Drawn | Picture | VideoFile | Seed | Model


@dataclass(frozen=True, slots=True)
class Choices:
    """What may be chosen, and what stands in the control first."""

    values: tuple[Any, ...]
    default: Any
    titles: Mapping[Any, Message] | None = None


Limit = Range | Choices | bool | None  # True: the model has it, without a range; None or False: it has not
Section = Literal["prompt", "settings", "given", "branch"]  # the part of the page that holds the control


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A word and a value under a clip, from left to right by `place` (10 is the LoRA's, which is no setting). The word
    is the message `label.chip.NAME`. `text` says the value; None leaves the chip out."""

    name: str
    place: int
    text: Callable[[Written], Message | str | None] | None = None

    @property
    def title(self) -> Message:
        return message(f"label.chip.{self.name}")


def always(limits: Limits) -> Limit:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. Its title and hint are the messages `label.NAME` and `label.NAME.hint`; `hint` is the code of
    another one where that depends on the model.

    `limit` is what a model accepts. `left_out` is what a request is whose file does not name the setting; None where
    every file names it. `read` is its value in a request, by default the field of its name. `help` is for programs:
    the command line and the API. `costs` says that a run's time or memory depends on it.
    """

    name: str
    help: str
    kind: Kind
    limit: Callable[[Limits], Limit] = always
    hint: Callable[[Limits], str] | None = None
    left_out: Any = None
    read: Callable[[GenerationRequest], Any] | None = None
    section: Section = "settings"
    in_link: bool = True
    costs: bool = False
    chip: Chip | None = None
    metavar: str | None = None

    @property
    def optional(self) -> bool:
        """Whether it may be nothing."""
        return isinstance(self.kind, Number | Choice | Seed) and self.kind.optional

    def of(self, request: GenerationRequest) -> Any:
        """Its value in a request as a file spells it; None where the model has nothing to choose."""
        value = getattr(request, self.name) if self.read is None else self.read(request)
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else list(value)
        return value

    @property
    def title(self) -> Message:
        return message(f"label.{self.name}")

    def hint_for(self, limits: Limits) -> Message | None:
        """What it does, in a sentence; None for a file, which the page explains with its size."""
        code = f"label.{self.name}.hint" if self.hint is None else self.hint(limits)
        return None if isinstance(self.kind, Given) else message(code)

    def shown(self, limits: Limits) -> bool:
        """Whether there is anything to set."""
        limit = self.limit(limits)
        return len(limit.values) > 1 if isinstance(limit, Choices) else bool(limit)

    def default(self, limits: Limits) -> Any:
        """What a request takes that does not name it; None for a text, a file, a seed, for what is optional, and
        where the model has no such setting."""
        limit = self.limit(limits)
        if self.optional:
            return None
        return limit.default if isinstance(limit, Range | Choices) else None

    def accepts(self, value: Any, limits: Limits) -> bool:
        """Whether a number or a choice lies within the model's limit."""
        match self.limit(limits):
            case Range(low=low, high=high):
                return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
            case Choices(values=values):
                return value in values
            case limit:
                return bool(limit)


def _length(written: Written) -> Message:
    """ "2.1 s", or "1 picture"."""
    if written["frames"] == 1:
        return message("label.chip.length.picture")
    return message("note.time.s", n=f"{written.get('total_frames', written['frames']) / written['fps']:.1f}")


def _size(written: Written) -> str | None:
    return f"{written['resolution']} {written['aspect']}" if "resolution" in written else None


def _given(written: Written) -> Message | None:
    """ "first and last frame", or "goes on from a video"."""
    if written.get("video"):
        return message(f"label.chip.given.{written.get('video_use', VIDEO_USES[0])}")
    frames = [word for word, name in (("first", "reference"), ("last", "last_frame")) if written.get(name)]
    return message(f"label.chip.given.{'_'.join(frames)}") if frames else None


def _rules(written: Written) -> Message | None:
    """Their titles; the name itself of a rule that only another version knew."""
    value: Any = written.get("rule")
    rules = value if isinstance(value, list) else [value]
    titles = [RULE_MESSAGES.get(rule) or plain(str(rule)) for rule in rules]
    return None if value is None else listed(*titles)


def plain_text(name: str) -> Callable[[Written], str | None]:
    """The value as it stands, numbers without needless zeros, several with commas."""

    def text(written: Written) -> str | None:
        value = written.get(name)
        several = value if isinstance(value, list) else [value]
        return None if value is None else ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in several)

    return text


def scenes_of(written: Written) -> int:
    """How many scenes a clip has, of its settings."""
    return int(written.get("scenes") or named_scenes(str(written.get("prompt", ""))))


def _scenes(written: Written) -> str | None:
    return str(count) if (count := scenes_of(written)) > 1 else None


def _if_given(name: str) -> Callable[[Written], str | None]:
    """The same where frames were given, or a scene gives the next its own: without any it changes nothing."""
    return lambda written: plain_text(name)(written) if _given(written) or scenes_of(written) > 1 else None


def _of_branch(name: str) -> Callable[[GenerationRequest], Any]:
    """A value of the request's branch; None without one."""
    return lambda request: None if request.branch is None else getattr(request.branch, name)


def _branch(written: Written) -> Message | None:
    """ "from step 5: guidance 7, new noise"."""
    if written.get("branch_step") is None:
        return None
    changes: list[Message | str] = [
        message(f"label.chip.branch.{name}", value=value)
        for name in ("prompt", "negative", "guidance")
        if (value := written.get(f"branch_{name}")) is not None
    ]
    if (rule := written.get("branch_rule")) is not None:
        changes.append(RULE_MESSAGES.get(rule) or str(rule))
    if (seed := written.get("branch_seed")) is not None:
        changes.append(message("label.chip.branch.seed", value=str(seed)))
    changes = changes or [message("label.chip.branch.nothing")]
    return message("label.chip.branch.from", step=written["branch_step"], changes=listed(*changes))


def _video_uses(limits: Limits) -> Limit:
    return Choices(limits.video_uses, limits.video_uses[0], USE_MESSAGES) if limits.video_uses else None


def _video_frames(limits: Limits) -> Limit:
    return Choices(tuple(sorted(limits.video_frames)), limits.video_frames[0]) if limits.video_frames else None


def _scene_counts(limits: Limits) -> Limit:
    return Range(low=1, high=limits.scenes, default=1) if limits.scenes > 1 else None


def _early_steps(limits: Limits) -> Limit:
    return Range(low=1, high=limits.steps.high - 1, default=1) if limits.steps.high > 1 else None


def _may_be_zero(limits: Limits) -> bool:
    return limits.motion_score is not None and limits.motion_score.low == 0


USE_MESSAGES: Mapping[VideoUse, Message] = {use: message(f"label.video_use.{use}") for use in VIDEO_USES}

REFINE_MESSAGES: Mapping[Refinement, Message] = {how: message(f"label.refine.{how}") for how in REFINEMENTS}

STEP_CACHE_MESSAGES: Mapping[StepCaching, Message] = {how: message(f"label.step_cache.{how}") for how in STEP_CACHINGS}

RULE_MESSAGES: Mapping[Rule, Message] = {rule: message(f"label.rule.{rule}") for rule in ALL_RULES}


def _step_cache(written: Written) -> Message | None:
    how = written.get("step_cache", "off")
    return None if how == "off" else STEP_CACHE_MESSAGES.get(how)


def _step_cachings(limits: Limits) -> Choices | None:
    return Choices(STEP_CACHINGS, STEP_CACHINGS[0], STEP_CACHE_MESSAGES) if limits.caches_steps else None


# In the order of the API's parameters: a new one goes to the end, since programs may give them by position.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="prompt",
        help="what the clip shows",
        kind=Text(required=True, max_lines=5),
        section="prompt",
        costs=True,  # each scene that it names is a run
    ),
    Setting(
        name="negative",
        help="what to steer away from",
        kind=Text(),
        read=lambda request: request.negative_prompt,
        section="given",
    ),
    Setting(
        name="reference",
        help="PNG, JPEG, WebP, AVIF or GIF that becomes the first frame",
        kind=Picture(),
        limit=lambda limits: limits.reference,
        read=lambda request: request.reference is not None,
        section="given",
        in_link=False,
        costs=True,
        chip=Chip(name="given", place=6, text=_given),
        metavar="IMAGE",
    ),
    Setting(
        name="fps",
        help="frames per second: what the model is told and what the file plays at",
        kind=Number(whole=True, refusal="request.between_fps"),
        limit=lambda limits: limits.fps,
        chip=Chip(name="fps", place=11, text=lambda written: None if written["frames"] == 1 else str(written["fps"])),
    ),
    Setting(
        name="frames",
        help="length of the clip",
        kind=Choice(whole=True),
        limit=lambda limits: Choices(limits.frames, limits.default_frames),
        read=lambda request: request.shape.frames,
        costs=True,
        chip=Chip(name="length", place=12, text=_length),
    ),
    Setting(
        name="steps",
        help="denoising steps",
        kind=Number(whole=True),
        limit=lambda limits: limits.steps,
        costs=True,
        chip=Chip(name="steps", place=2),
    ),
    Setting(
        name="guidance",
        help="guidance scale; 1 is none",
        kind=Number(several=True),
        limit=lambda limits: limits.guidance,
        costs=True,
        chip=Chip(name="guidance", place=3),
        metavar="W",
    ),
    Setting(
        name="seed",
        help="0 to 4294967295; random if left out",
        kind=Seed(),
        chip=Chip(name="seed", place=1),
    ),
    Setting(
        name="model",
        help="its id, as `models` lists it",
        kind=Model(),
        read=lambda request: request.model_id,
        section="prompt",
        costs=True,
        chip=Chip(name="model", place=0),
    ),
    Setting(
        name="last_frame",
        help="the same for the last frame, where the model takes one",
        kind=Picture(),
        limit=lambda limits: limits.last_frame,
        left_out=False,
        read=lambda request: request.last_frame is not None,
        section="given",
        in_link=False,
        costs=True,
        metavar="IMAGE",
    ),
    Setting(
        name="edit",
        help="0 keeps given frames exactly, up to 1 lets them be redrawn",
        kind=Number(),
        limit=lambda limits: Range(low=0, high=1, default=0, step=0.05) if limits.edit else None,
        left_out=0,
        section="given",
        costs=True,
        chip=Chip(name="freedom", place=8, text=_if_given("edit")),
    ),
    Setting(
        name="rule",
        help="guidance rule: " + ", ".join(ALL_RULES),
        kind=Choice(several=True),
        limit=lambda limits: Choices(limits.rules, limits.rules[0], RULE_MESSAGES),
        left_out="plain",
        read=lambda request: request.rules,
        costs=True,
        chip=Chip(name="rule", place=4, text=_rules),
        metavar="R",
    ),
    Setting(
        name="image_guidance",
        help="how hard given frames pull",
        kind=Number(),
        limit=lambda limits: limits.image_guidance,
        left_out=1,
        costs=True,
        chip=Chip(name="image_guidance", place=7, text=_if_given("image_guidance")),
        metavar="W",
    ),
    Setting(
        name="motion_score",
        hint=lambda limits: "label.motion_score.hint_optional" if _may_be_zero(limits) else "label.motion_score.hint",
        help="told to the model: more is livelier",
        kind=Number(),
        limit=lambda limits: limits.motion_score,
        left_out=0,
        read=lambda request: request.motion_score or 0,
        chip=Chip(name="motion", place=9),
        metavar="M",
    ),
    Setting(
        name="resolution",
        help="such as 480p, where the model has several",
        kind=Choice(),
        limit=lambda limits: Choices(limits.resolutions, limits.sizes[0].resolution),
        read=lambda request: request.size and request.size.resolution,
        costs=True,
        chip=Chip(name="size", place=5, text=_size),
    ),
    Setting(
        name="aspect",
        help="width to height, such as 16:9, where the model has several",
        kind=Choice(),
        limit=lambda limits: Choices(limits.aspects, limits.sizes[0].aspect),
        read=lambda request: request.size and request.size.aspect,
        costs=True,
    ),
    Setting(
        name="curve",
        help='how much of the pull is in force over the steps, such as "0:0, 0.3:1, 1:0.5"',
        kind=Drawn(),
        left_out="",
        read=lambda request: curve_text(request.curve),
        costs=True,
        chip=Chip(name="curve", place=13, text=lambda written: written.get("curve") or None),
        metavar="POINTS",
    ),
    Setting(
        name="branch_step",
        help="after so many steps the run goes on otherwise, by the settings branch_...",
        kind=Number(whole=True, optional=True),
        limit=_early_steps,
        read=_of_branch("step"),
        section="branch",
        chip=Chip(name="branch", place=14, text=_branch),
        metavar="K",
    ),
    Setting(
        name="branch_prompt",
        help="the prompt from that step on",
        kind=Text(),
        read=_of_branch("prompt"),
        section="branch",
    ),
    Setting(
        name="branch_negative",
        help="the negative prompt from that step on",
        kind=Text(),
        read=_of_branch("negative_prompt"),
        section="branch",
    ),
    Setting(
        name="branch_guidance",
        help="the guidance scale from that step on",
        kind=Number(optional=True),
        limit=lambda limits: limits.guidance,
        read=_of_branch("guidance"),
        section="branch",
        metavar="W",
    ),
    Setting(
        name="branch_rule",
        help="the guidance rule from that step on",
        kind=Choice(optional=True),
        limit=lambda limits: Choices(limits.rules, limits.rules[0], RULE_MESSAGES),
        read=_of_branch("rule"),
        section="branch",
        metavar="R",
    ),
    Setting(
        name="branch_seed",
        help="draws the noise of that step anew",
        kind=Seed(optional=True),
        read=_of_branch("seed"),
        section="branch",
    ),
    Setting(
        name="stop_step",
        help="decode what is expected after so many steps, and leave out the rest",
        kind=Number(whole=True, optional=True),
        limit=_early_steps,
        section="branch",
        costs=True,
        chip=Chip(name="stop", place=15),
        metavar="K",
    ),
    Setting(
        name="video",
        help="mp4, MOV, WebM, GIF or WebP of which the clip keeps a part, where the model takes one",
        kind=VideoFile(),
        limit=lambda limits: bool(limits.video_uses),
        left_out=False,
        read=lambda request: request.video is not None,
        section="given",
        in_link=False,
        costs=True,
        metavar="VIDEO",
    ),
    Setting(
        name="video_use",
        help="extend: go on from the video's end, and follow it; head: begin as it begins; tail: end as it ends",
        kind=Choice(),
        limit=_video_uses,
        left_out="extend",
        section="given",
        costs=True,
    ),
    Setting(
        name="video_frames",
        help="how many frames of the video the clip keeps, and each scene of the one before",
        kind=Choice(whole=True),
        limit=_video_frames,
        hint=lambda limits: "label.video_frames.hint_few" if 1 in limits.video_frames else "label.video_frames.hint",
        left_out=0,
        read=lambda request: request.video_frames if request.video is not None or request.scenes > 1 else None,
        section="given",
        costs=True,
    ),
    Setting(
        name="scenes",
        help='how many scenes; left out as many as the prompt names: "|0|a ball bouncing|1|a ball spinning"',
        kind=Number(whole=True, optional=True),
        limit=_scene_counts,
        read=lambda request: None if request.scenes == named_scenes(request.prompt) else request.scenes,
        costs=True,
        chip=Chip(name="scenes", place=16, text=_scenes),
        metavar="N",
    ),
    Setting(
        name="refine",
        help="seed: a place is drawn where the prompt names none, which nano can hardly read; off: it stays as it is",
        kind=Choice(),
        limit=lambda limits: Choices(REFINEMENTS, REFINEMENTS[0], REFINE_MESSAGES) if limits.refines else None,
        left_out="seed",
    ),
    Setting(
        name="step_cache",
        help="mild or strong: steps whose prediction would hardly change take that of the step before; off: none does",
        kind=Choice(),
        limit=_step_cachings,
        left_out="off",
        chip=Chip(name="step_cache", place=17, text=_step_cache),
    ),
)


def names() -> tuple[str, ...]:
    return tuple(setting.name for setting in SETTINGS)


def find(name: str) -> Setting:
    return next(setting for setting in SETTINGS if setting.name == name)


def left_out(limits: Limits) -> dict[str, Any]:
    """What a request is without the settings that its file or link does not name, where that is not the model's
    default. A score of 0 that a model does not take is its default all the same."""
    return {
        setting.name: setting.left_out
        for setting in SETTINGS
        if setting.left_out is not None
        and not isinstance(setting.kind, Given)
        and (not setting.shown(limits) or setting.accepts(setting.left_out, limits))
    }
