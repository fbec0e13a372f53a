"""What an owner of the machine keeps on it: the gallery and the queue of runs, in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opensora_demo.service.engine import Engine
from opensora_demo.service.gallery import Gallery
from opensora_demo.service.options import StorageOptions, Who
from opensora_demo.service.run_queue import QueueWorker, RunQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """`who` may look into it from the page."""

    gallery: Gallery
    queue: RunQueue
    worker: QueueWorker
    who: Who = "alone"

    @classmethod
    def open(cls, options: StorageOptions, engine: Engine) -> Storage:
        """Nothing is written before something is kept."""
        gallery, queue = Gallery(options.folder, options.max_bytes), RunQueue(Path(options.folder) / "queue")
        worker = QueueWorker(queue, gallery, engine, engine.estimator)
        return cls(gallery=gallery, queue=queue, worker=worker, who=options.who)
