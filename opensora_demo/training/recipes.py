"""How each embedded model is made: its stages, and the numbers of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from opensora_demo.catalog import ModelSpec, WeightFiles
from opensora_demo.catalog.nano import (
    NANO,
    NANO_CLASS,
    NANO_CONCAT,
    NANO_CROSS,
    NANO_DIT,
    NANO_MMDIT,
    NANO_REPLACED,
    NANO_WEAK,
)
from opensora_demo.catalog.spec import Part
from opensora_demo.training.teacher import Lesson
from opensora_demo.training.train_network import (
    Captions,
    DiTJob,
    LabelJob,
    MMDiTJob,
    NetworkJob,
    Objective,
    Started,
    STDiT3Job,
    Trunk,
)
from opensora_demo.weights.store import asset

STAGES = ("vae", "pool", "decoder", "text", "dit", "reader", "export", "preview", "measure")
PAIRS = 0.25  # share of training clips with two objects
# As the web has them: guidance 1, which trusts a caption as far as these could be trusted, is clearly worse than more.
_AS_ON_THE_WEB = Captions(chinese=0.15, incomplete=0.25, foreign=0.2)
_OFTEN_VAGUE = Captions(chinese=0.15, incomplete=0.25)  # a quarter leave out half of what there is to say


def borrowed(name: str) -> bool:
    """Whether a file of the weights is another model's."""
    return name.startswith("../")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNumbers:
    """`steps` ends a stage, the last `cooldown` of them lower the learning rate to zero. `batch` is of all workers
    together. `budget_s` of CPU time, if there is one, ends it in their place, and `cooldown_share` of that cools down.
    """

    steps: int
    cooldown: int
    lr: float
    ema_decay: float
    batch: int
    drops: tuple[tuple[int, float], ...] = ()
    adam_ratio: float = 0.5
    budget_s: float = 0.0
    cooldown_share: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`own_codec` False takes the codec, its shift and its scale from nano's exported files. `fps` is the one frame
    rate of the pool (None: many), `pairs` its share of clips with two objects, `extra_words` what the tokenizer knows
    beside the grammar, `trunk` a model that training begins with and which of its blocks (`train_network.Trunk`),
    `lesson` a finished model that says what to answer (`teacher.Teacher`)."""

    spec: ModelSpec
    job: type[NetworkJob]
    dit: StageNumbers
    vae: StageNumbers | None = None
    decoder: StageNumbers | None = None
    text: StageNumbers | None = None
    reader: StageNumbers | None = None
    own_codec: bool = True
    fps: int | None = None
    extra_words: tuple[str, ...] = ()
    trunk: tuple[ModelSpec, tuple[int, ...]] | None = None
    pairs: float = PAIRS
    lesson: Lesson | None = None
    objective: Objective = field(default_factory=Objective)
    captions: Captions = field(default_factory=Captions)

    @property
    def files(self) -> WeightFiles:
        """Where the finished weights lie. Every recipe makes an embedded model, which has files."""
        weights = self.spec.weights
        assert isinstance(weights, WeightFiles)
        return weights

    @property
    def begins_with(self) -> Trunk | None:
        """The trunk, from the files in assets."""
        if self.trunk is None:
            return None
        spec, blocks = self.trunk
        assert isinstance(spec.weights, WeightFiles)
        return Trunk(files=tuple(asset(spec.weights, name) for name in spec.weights.network), blocks=blocks)

    @property
    def own_tokenizer(self) -> str:
        """Its file; none of a model of class labels, and of one that reads with another's."""
        name = self.files.tokenizer or self.files.clip_tokenizer
        return "" if borrowed(name) else name

    def reading(self, start: Path | None) -> tuple[Path, ...]:
        """Files of a text encoder that can read already and stays as it is: that of earlier weights in `start`, where
        the recipe teaches it first, or another model's."""
        if self.text is not None and start is not None:
            return tuple(start / name for name in self.files.text)
        return tuple(asset(self.files, name) for name in self.files.text if borrowed(name))

    def started(self, folder: Path, parts: tuple[Part, ...], tokenizer: Path) -> Started:
        """The `parts` of earlier weights in `folder`, laid out as in assets. `tokenizer` is what they were trained with
        if they have none of their own."""
        return Started(
            parts={part: tuple(folder / name for name in getattr(self.files, part)) for part in parts},
            tokenizer=folder / self.own_tokenizer if self.own_tokenizer else tokenizer,
        )

    @property
    def stages(self) -> tuple[str, ...]:
        own: dict[str, object] = {"vae": self.vae, "pool": self.dit, "decoder": self.decoder, "text": self.text}
        preview = None if borrowed(self.files.preview) else self.spec.tiny
        own |= {"dit": self.dit, "reader": self.reader, "preview": preview}
        return tuple(stage for stage in STAGES if own.get(stage, self) is not None)


# Its captions were as on the web: a little guidance makes up for those that were another clip's.
_FROM_NANO = Lesson(spec=NANO, guidance=1.5)
_DIT = StageNumbers(steps=9600, cooldown=3200, lr=4e-3, ema_decay=0.998, batch=64)
_TEXT = StageNumbers(steps=2500, cooldown=1000, lr=3e-3, ema_decay=0.98, batch=1100, adam_ratio=2)  # tokens
_BRIEF = replace(_DIT, steps=2400, cooldown=1000)
_DECODER = StageNumbers(steps=3000, cooldown=2600, lr=7e-4, ema_decay=0.995, batch=8)

RECIPES: Mapping[str, Recipe] = {
    "nano": Recipe(
        spec=NANO,
        job=STDiT3Job,
        vae=StageNumbers(steps=4400, cooldown=2300, lr=1.5e-3, ema_decay=0.995, batch=8, drops=((1120, 1 / 2),)),
        decoder=_DECODER,
        text=_TEXT,
        dit=_DIT,
        objective=Objective(rooms=0.1),
        captions=_AS_ON_THE_WEB,
        pairs=0.4,
        reader=StageNumbers(steps=1200, cooldown=700, lr=2.5e-3, ema_decay=0.99, batch=16),
    ),
    "nano-dit": Recipe(spec=NANO_DIT, job=DiTJob, dit=_DIT, own_codec=False, fps=8, lesson=_FROM_NANO),
    "nano-mmdit": Recipe(
        spec=NANO_MMDIT,
        job=MMDiTJob,
        # The norms that end its residual branches must grow with the sum that they are added to: ten times the rate.
        vae=StageNumbers(steps=6000, cooldown=3600, lr=8e-4, ema_decay=0.995, batch=4, adam_ratio=10),
        decoder=_DECODER,
        dit=replace(_DIT, batch=40),
        extra_words=("fps", *(str(n) for n in range(1, 31))),
    ),
    **{
        spec.id: Recipe(
            spec=spec,
            job=STDiT3Job,
            dit=_BRIEF,
            own_codec=False,
            trunk=(NANO, (0, 2, 3)),  # of the three that one can leave out, the second is missed least
            captions=_OFTEN_VAGUE,
            pairs=0.4,
        )
        for spec in (NANO_CROSS, NANO_CONCAT, NANO_REPLACED)
    },
    # Worse than nano at what nano itself is bad at: it can trust a caption half as far. One that trusts it further, as
    # an early checkpoint does that has seen none but right captions, leads nano away from the prompt.
    "nano-weak": Recipe(
        spec=NANO_WEAK,
        job=STDiT3Job,
        dit=_BRIEF,
        own_codec=False,
        captions=Captions(chinese=0.15, incomplete=0.5, foreign=0.4),
        pairs=0.4,
    ),
    "nano-class": Recipe(
        spec=NANO_CLASS,
        job=LabelJob,
        dit=_BRIEF,
        own_codec=False,
        trunk=(NANO_DIT, (0, 1, 3, 5)),
        fps=8,
        pairs=0.0,
        lesson=_FROM_NANO,
    ),
}
