"""A device that tests hold at its points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any

import numpy as np

from opensora_demo.explain.run import Progress
from opensora_demo.request.events import Clip, Decoding, Encoded, Event, Finished, Started, StepPreview
from opensora_demo.request.request import GenerationRequest
from opensora_demo.weights.options import WeightOptions

WAIT_S = 10.0  # nothing here takes as long; a test that waits so long has failed


@dataclass
class Device:
    """A pipeline without a model: what ran on it, in order; each of its points waits until the test lets it pass."""

    log: list[str] = field(default_factory=list)
    held: dict[str, Flag] = field(default_factory=dict)  # points that wait, by name
    reached: dict[str, Flag] = field(default_factory=dict)
    error: Exception | None = None
    on_it: int = 0
    most: int = 0
    closed: int = 0
    options: WeightOptions = field(default_factory=WeightOptions)

    def hold(self, point: str) -> None:
        self.held[point], self.reached[point] = Flag(), Flag()

    def at(self, point: str) -> None:
        if point in self.held:
            self.reached[point].set()
            assert self.held[point].wait(WAIT_S)

    def get(self, model_id: str, check: Callable[[], None] = lambda: None) -> Any:
        self.at("load")
        if self.error is not None and str(self.error) == "load":
            raise self.error
        return None

    def generate(self, bundle: Any, request: GenerationRequest, cancel: Flag, *, look: bool = False) -> Iterator[Event]:
        self.on_it += 1
        self.most = max(self.most, self.on_it)
        self.log.append(request.prompt)
        try:
            yield Started(request=request)
            yield Encoded(unknown=(), cut_tokens=0, seconds=0.0)
            picture = np.zeros((1, 8, 8, 3), np.uint8)
            for i in range(request.steps):
                self.at(f"step {i}")
                if self.error is not None:
                    raise self.error
                yield StepPreview(
                    index=i,
                    total=request.steps,
                    t=1 - i / request.steps,
                    previews=(picture,),
                    guidance=(1.0,),
                    seconds=0.1,
                )
            self.at("decode")
            clip = Clip(frames=picture, request=request)
            yield Decoding(done=1, total=1, clip=clip)
            yield Finished(clips=(clip,), seconds={"text": 0.1, "denoise": 0.2, "decode": 0.1}, unknown=())
        finally:
            self.at("let go")
            self.on_it -= 1
            self.closed += 1

    def explain(self, bundle: Any, request: GenerationRequest, cancel: Flag) -> Iterator[Progress]:
        self.log.append(f"explain {request.prompt}")
        self.at("explain")
        yield Progress(done=1, total=1, text="x")
