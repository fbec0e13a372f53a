"""One run as values that have been checked. Built only by `parse.parse_request`, and trusted after that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from opensora_demo import __version__
from opensora_demo.messages import Message, message
from opensora_demo.request import settings as table
from opensora_demo.request.curve import Curve
from opensora_demo.request.limits import (
    REFINEMENTS,
    STEP_CACHINGS,
    VIDEO_USES,
    Refinement,
    Rule,
    Size,
    StepCaching,
    VideoUse,
)
from opensora_demo.request.scenes import has_scenes, scene_of
from opensora_demo.request.video import Frames, VideoShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """How a run goes on otherwise after its first `step` steps: what is not None changes. `seed` draws the noise of
    that moment anew, around what the clip is expected to be there."""

    step: int
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    rule: Rule | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One run. Two or more values of `guidance` or `rules` are a comparison: a clip for each pair, from one noise.

    Two or more `scenes` are as many runs of the model for a clip, one after the other, `shape` being that of each: the
    next one begins with the last `video_frames` of the one before, and the clip has these once.
    """

    model_id: str
    prompt: str
    negative_prompt: str
    shape: VideoShape
    fps: int
    steps: int
    guidance: tuple[float, ...]
    seed: int
    reference: Frames | None = None  # first frame (1, h, w, 3), already at the model's size
    last_frame: Frames | None = None  # likewise
    video: Frames | None = None  # (t, h, w, 3) at the model's size and at `fps`, all of it
    video_use: VideoUse = VIDEO_USES[0]  # what of it the clip keeps
    video_frames: int = 0  # how many of its frames, and of a scene's in the next
    scenes: int = 1
    edit: float = 0.0  # 0 keeps given frames (1.1 refines them once), 0.4 redraws them over the last 40 % of the way
    rules: tuple[Rule, ...] = ("plain",)
    image_guidance: float = 1.0  # how strongly given frames pull; only where the model has such a branch
    motion_score: float | None = None  # words at the end of the prompt; None leaves them out, as a 0 does
    curve: Curve = ()  # how much of the pull is in force at each step; none is all of it
    size: Size | None = None  # None where the model has only one
    loras: tuple[str, ...] = ()  # files added to the model, as they are recorded
    branch: Branch | None = None
    refine: Refinement = REFINEMENTS[0]  # of models that take it (`Limits.refines`)
    step_cache: StepCaching = STEP_CACHINGS[0]
    stop_step: int | None = None  # the estimate after so many steps is decoded, and the rest is left out

    @property
    def given(self) -> bool:
        """Whether frames are given."""
        return self.reference is not None or self.last_frame is not None or self.video is not None

    @property
    def extends(self) -> bool:
        """Whether the clip is a given video with new frames behind it."""
        return self.video is not None and self.video_use == "extend"

    def scene(self, index: int) -> GenerationRequest:
        """The run of one scene, from 0: with its words, and of what is given with what stands there. The frames of the
        scene before are not among it."""
        if self.scenes == 1 and not has_scenes(self.prompt):
            return self
        first, last = index == 0, index + 1 == self.scenes
        return replace(
            self,
            prompt=scene_of(self.prompt, index).strip(),
            scenes=1,
            reference=self.reference if first else None,
            last_frame=self.last_frame if last else None,
            video=self.video if (last if self.video_use == "tail" else first) else None,
        )

    @property
    def scene_frames(self) -> tuple[tuple[int, int], ...]:
        """The frames [first, end) of the clip that each scene adds; of one that extends a video, the video's are the
        first one's too."""
        end = self.shape.frames
        if self.video is not None and self.extends:
            end += len(self.video) - self.video_frames
        spans = [(0, end)]
        for _ in range(1, self.scenes):
            spans.append((end, end := end + self.shape.frames - self.video_frames))
        return tuple(spans)

    @property
    def total_frames(self) -> int:
        """Frames of the clip: with those of a video that it extends, and of all scenes."""
        return self.scene_frames[-1][1]

    @property
    def trunk(self) -> GenerationRequest:
        """What a branch leaves: the run that would have gone on."""
        return replace(self, branch=None)

    @property
    def changed(self) -> GenerationRequest:
        """What a branch goes on as; the same as `trunk` where it changes nothing."""
        if (branch := self.branch) is None:
            return self
        new = {
            "prompt": branch.prompt,
            "negative_prompt": branch.negative_prompt,
            "guidance": None if branch.guidance is None else (branch.guidance,),
            "rules": None if branch.rule is None else (branch.rule,),
        }
        return replace(self.trunk, **{name: value for name, value in new.items() if value is not None})  # type: ignore[arg-type]

    @property
    def columns(self) -> tuple[tuple[float, Rule], ...]:
        """(scale, rule) of each clip, the scales of the first rule first."""
        return tuple((scale, rule) for rule in self.rules for scale in self.guidance)

    def column(self, index: int) -> GenerationRequest:
        """The request that makes the clip of one column alone."""
        scale, rule = self.columns[index]
        return replace(self, guidance=(scale,), rules=(rule,))

    @property
    def labels(self) -> tuple[Message, ...]:
        """What tells the columns apart: "guidance 4", "APG", or "guidance 4, APG"."""
        several, bent = len(self.guidance) > 1, len(self.rules) > 1

        def label(scale: float, rule: Rule) -> Message:
            title = table.RULE_MESSAGES[rule]
            if not bent:
                return message("note.column.guidance", scale=scale)
            return message("note.column.rule", scale=scale, rule=title) if several else title

        return tuple(label(scale, rule) for scale, rule in self.columns)

    def settings(self) -> dict[str, Any]:
        """The request in the words of the API, as it is written into files and shown under a clip."""
        values = {setting.name: (setting.of(self), setting.left_out) for setting in table.SETTINGS}
        written = {name: value for name, (value, left_out) in values.items() if value is not None and value != left_out}
        more = {"total_frames": self.total_frames} if self.extends or self.scenes > 1 else {}
        lora = {"lora": [*self.loras]} if self.loras else {}
        return {**written, **more, **lora, "version": __version__}
