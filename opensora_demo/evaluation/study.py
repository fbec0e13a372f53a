"""What a small model can do, in numbers: guidance, negative prompts, FPS, references, flicker, the codec, step counts.

python -m opensora_demo.evaluation.study nano                         all of it, into study.json beside the weights
python -m opensora_demo.evaluation.study nano --only fps --share 0.1  one part with a tenth of the clips

What a model has not (a reference image) is left out. Clips are read at 64 x 64, positions are in 64ths of the side, and
None is a number that could not be measured. Clips are made of scenes that training never drew, one in ten of them of a
combination of shape, colour and motion never trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from opensora_demo.catalog import ModelSpec, RandomWeights, WeightFiles, find_model
from opensora_demo.evaluation.studies.base import Counts, Measurement, Setup, clip_size
from opensora_demo.evaluation.studies.codec_fidelity import CodecFidelity
from opensora_demo.evaluation.studies.consistency import Consistency
from opensora_demo.evaluation.studies.given_frame import GivenFrame
from opensora_demo.evaluation.studies.guidance_scales import GuidanceStudy
from opensora_demo.evaluation.studies.half_precision import HalfPrecision
from opensora_demo.evaluation.studies.labels import LabelAdherence
from opensora_demo.evaluation.studies.negative_prompts import NegativePrompts
from opensora_demo.evaluation.studies.other_captions import OtherCaptions
from opensora_demo.evaluation.studies.photo import PhotoStudy
from opensora_demo.evaluation.studies.prompt_adherence import PromptAdherence
from opensora_demo.evaluation.studies.reader_accuracy import ReaderAccuracy
from opensora_demo.evaluation.studies.speed import SpeedStudy
from opensora_demo.evaluation.studies.steps import StepStudy, name_of
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, fit_threads
from opensora_demo.sampling.config import SamplerConfig
from opensora_demo.toy.reader import Reader, load_reader
from opensora_demo.weights.options import DEFAULT_OPTIONS
from opensora_demo.weights.store import ASSETS, locate

# In the order of the cards.
STUDIES: tuple[type[Measurement], ...] = (
    ReaderAccuracy,
    PromptAdherence,
    LabelAdherence,
    GuidanceStudy,
    OtherCaptions,
    SpeedStudy,
    StepStudy,
    HalfPrecision,
    GivenFrame,
    NegativePrompts,
    PhotoStudy,
    CodecFidelity,
    Consistency,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What clips are made with where a measurement says nothing else."""

    frames: int
    size_px: int
    fps: float
    guidance: float
    steps: int
    sampler: str

    @classmethod
    def of(cls, spec: ModelSpec) -> Settings:
        limits, (frames, size_px) = spec.limits, clip_size(spec)
        return cls(
            frames=frames,
            size_px=size_px,
            fps=limits.fps.default,
            guidance=limits.guidance.default,
            steps=int(limits.steps.default),
            sampler=name_of(spec.sampler),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study.json: which weights, how they were run, when and for how long each part was measured; and the parts,
    each a field of its measurement's `name`, None where it was not measured."""

    model: str
    weights: str
    device: str
    settings: Settings
    dates: dict[str, str]
    seconds: dict[str, float]
    reader: ReaderAccuracy | None = None
    adherence: PromptAdherence | None = None
    labels: LabelAdherence | None = None
    guidance: GuidanceStudy | None = None
    other_captions: OtherCaptions | None = None
    fps: SpeedStudy | None = None
    steps: StepStudy | None = None
    half_precision: HalfPrecision | None = None
    reference: GivenFrame | None = None
    negative: NegativePrompts | None = None
    photo: PhotoStudy | None = None
    codec: CodecFidelity | None = None
    consistency: Consistency | None = None

    @property
    def parts(self) -> list[Measurement]:
        """What was measured, in the order of the cards."""
        return [part for study in STUDIES if (part := getattr(self, study.name)) is not None]

    def to_json(self) -> dict[str, Any]:
        """Plain values without what was not measured."""
        return {key: value for key, value in plain(asdict(self)).items() if getattr(self, key) is not None}


_STUDY = TypeAdapter(Study)


def plain(value: Any) -> Any:
    """For JSON: four digits after the point, lists for tuples, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return round(float(value), 4) if math.isfinite(value) else None
    return value


def rounded(study: Study) -> Study:
    """As its file has it."""
    return _STUDY.validate_python(study.to_json())


def read_study(file: Path) -> Study:
    """Raises pydantic's ValidationError for a file that is no study.json."""
    return _STUDY.validate_json(file.read_bytes())


def write_study(study: Study, file: Path) -> None:
    file.write_text(json.dumps(study.to_json(), indent=1) + "\n")


def studies_of(spec: ModelSpec) -> tuple[type[Measurement], ...]:
    """What can be measured of a model."""
    return tuple(study for study in STUDIES if study.applies(spec))


def fingerprint(spec: ModelSpec) -> str:
    """Twelve hexadecimal digits that change with any file that a clip depends on: not with how a run is watched, nor
    with how odd spellings of known words are found."""
    if isinstance(spec.weights, RandomWeights):
        return f"random {spec.weights.seed}"
    digest = hashlib.sha256()
    found = {part: files for part, files in locate(spec, DEFAULT_OPTIONS).items() if part != "preview"}
    for file in dict.fromkeys(file for files in found.values() for file in files):
        data = file.read_bytes()
        digest.update(data if file.suffix != ".json" else json.dumps(json.loads(data)["model"]).encode())
    return digest.hexdigest()[:12]


def run_study(
    bundle: ModelBundle,
    reader: Reader,
    counts: Counts,
    *,
    only: Sequence[str] = (),
    samplers: Sequence[SamplerConfig] = (),
) -> Study:
    """Every measurement the model allows, or those named in `only`; `samplers` for the steps, or the usual ones."""
    setup = Setup(bundle=bundle, reader=reader, counts=counts, samplers=tuple(samplers))
    settings = Settings.of(bundle.spec)
    parts: dict[str, Any] = {}
    dates: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for study in studies_of(bundle.spec):
        if only and study.name not in only:
            continue
        clock = time.perf_counter()
        parts[study.name] = study.measure(setup)
        dates[study.name] = datetime.now(UTC).date().isoformat()
        seconds[study.name] = round(time.perf_counter() - clock, 1)
    return rounded(
        Study(
            model=bundle.spec.id,
            weights=fingerprint(bundle.spec),
            device=str(bundle.device),
            settings=settings,
            dates=dates,
            seconds=seconds,
            **parts,
        )
    )


def merged(old: Study, new: Study) -> Study:
    """New parts over old ones of the same weights and settings; old ones of others are dropped."""
    if (old.model, old.weights, old.settings) != (new.model, new.weights, new.settings):
        return new
    kept: dict[str, Any] = {part.name: part for part in old.parts if getattr(new, part.name) is None}
    return replace(new, **kept, dates=old.dates | new.dates, seconds=old.seconds | new.seconds)


def measure_into(file: Path, bundle: ModelBundle, reader: Reader, counts: Counts, names: Sequence[str] = ()) -> Study:
    """The named parts (all without names) into a study.json, one by one, so that a run may be stopped; answers what
    the file holds in the end."""
    for name in names or [study.name for study in studies_of(bundle.spec)]:
        result = run_study(bundle, reader, counts, only=[name])
        print(name, json.dumps(result.to_json()[name]), flush=True)
        if file.exists():
            result = merged(read_study(file), result)
        write_study(result, file)
    return read_study(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.evaluation.study", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of clips")
    parser.add_argument("--only", default="", help="comma-separated parts, as they are called in study.json")
    parser.add_argument("--out", type=Path, help="folder for study.json; the model's own without it")
    args = parser.parse_args()
    spec = find_model(args.model)
    if args.out is not None:
        file = args.out / "study.json"
    elif not isinstance(spec.weights, WeightFiles):
        parser.error(f"{spec.id} has no folder; name one with --out")
    else:
        file = ASSETS / spec.weights.folder / "study.json"
    known = [study.name for study in studies_of(spec)]
    names = [name.strip() for name in args.only.split(",") if name.strip()] or known
    if wrong := [name for name in names if name not in known]:
        parser.error(f"{spec.id} has no {', '.join(wrong)}; there are {', '.join(known)}")
    fit_threads()
    file.parent.mkdir(parents=True, exist_ok=True)
    measure_into(file, build_bundle(spec), load_reader(), Counts().times(args.share), names)


if __name__ == "__main__":
    main()
