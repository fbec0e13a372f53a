"""Where weights are: in `assets`, in a local folder, in the hub's cache, or on the hub, from where they are fetched.

A local folder holds a file as `<repository>/<file>` (what `hf download ORG/REPOSITORY --local-dir REPOSITORY` makes),
or, where its name is its own, as `<file>`: the layout of Open-Sora 2.0's ./ckpts. Downloads go there too. They resume:
an unfinished file is `<file>.part`, with the commit and checksum it belongs to beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from threading import Event as Flag
from typing import Any

from filelock import FileLock, Timeout

from opensora_demo.catalog import ElsewhereWeights, ModelSpec, RandomWeights, WeightFiles
from opensora_demo.catalog.spec import HubFiles, HubWeights, Part
from opensora_demo.errors import Cancelled, WeightsError
from opensora_demo.locations import assets_dir
from opensora_demo.messages import Message, message, shortened
from opensora_demo.weights.options import WeightOptions

ASSETS = assets_dir()
PART_NAMES: Mapping[Part, Message] = {
    "network": message("weights.part.network"),
    "codec": message("weights.part.codec"),
    "text": message("weights.part.text"),
    "tokenizer": message("weights.part.tokenizer"),
    "clip": message("weights.part.clip"),
    "clip_tokenizer": message("weights.part.clip_tokenizer"),
    "preview": message("weights.part.preview"),
}
PICKLES = (".pth", ".pt", ".bin")
_COMMON = {"model.safetensors", "diffusion_pytorch_model.safetensors", "spiece.model", "tokenizer.json"}
_BLOCK_BYTES = 1 << 20
_SHA1, _SHA256 = 40, 64  # hexadecimal digits
_SILENCE_S = 30.0  # of a connection, after which it counts as broken

Located = dict[Part, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Fetching:
    """A download goes on: the file by its name, bytes of all files that are here, and of all there will be."""

    file: str
    done_bytes: int
    total_bytes: int


def fitted_preview(spec: ModelSpec, options: WeightOptions) -> Path:
    """Where `training.previews` puts a model's preview matrix."""
    return options.weights_dir / "previews" / f"{spec.id}.safetensors"


def tiny_decoder(spec: ModelSpec, options: WeightOptions) -> Path | None:
    """The file of a published model's small decoder for previews, if it is among the weights: as its repository has
    it, in it or by itself."""
    if spec.tiny is None or not spec.tiny.file:
        return None
    names = [f"{folder}{spec.tiny.file}.safetensors" for folder in ("", "taehv/", "taehv/safetensors/")]
    if options.allow_pickle:
        names += [f"{folder}{spec.tiny.file}.pth" for folder in ("", "taehv/")]
    return next((file for name in names if (file := options.weights_dir / name).is_file()), None)


# --- finding


def asset(files: WeightFiles, name: str) -> Path:
    """Where a file of embedded weights lies. It may be another model's ("../nano/..."), and this one's folder may be
    still to come."""
    return Path(os.path.normpath(ASSETS / files.folder / name))


def _find(place: HubFiles, root: Path) -> tuple[Path, ...] | None:
    """The files of one place, all from the local folder `root` or all from the hub's cache."""
    for folder in (root / place.repo.split("/")[1], root):
        paths = [folder / name for name in place.files]
        own = folder != root or not any(Path(name).name in _COMMON and "/" not in name for name in place.files)
        if own and all(path.is_file() for path in paths):
            return tuple(paths)
    from huggingface_hub import try_to_load_from_cache  # late: slow to import

    for revision in dict.fromkeys((place.revision, "main")):
        cached = [try_to_load_from_cache(place.repo, name, revision=revision) for name in place.files]
        if all(isinstance(path, str) for path in cached):
            return tuple(Path(str(path)) for path in cached)
    return None


def find_part(places: tuple[HubFiles, ...], options: WeightOptions) -> tuple[Path, ...] | None:
    """The files of a part in the first place that is here; pickles count only where they are allowed."""
    for place in places:
        if not options.allow_pickle and place.files[0].endswith(PICKLES):
            continue
        if found := _find(place, options.weights_dir):
            return found
    return None


def locate(spec: ModelSpec, options: WeightOptions) -> Located:
    """The files of every part. Raises WeightsError saying which are missing, where they belong and how to get them."""
    if isinstance(spec.weights, ElsewhereWeights):
        return {}
    if isinstance(spec.weights, RandomWeights):
        tokenizer = (ASSETS / spec.weights.tokenizer,)
        return {"tokenizer": tokenizer, "clip_tokenizer": tokenizer}
    if isinstance(spec.weights, WeightFiles):
        w = spec.weights
        if missing := [name for name in w.all_files() if not asset(w, name).is_file()]:
            files = shortened(tuple(missing[:3]), len(missing) - 3)
            raise WeightsError(
                message("weights.missing_files", model=spec.id, files=files, folder=f"{ASSETS.name}/{w.folder}")
            )
        names: dict[Part, tuple[str, ...]] = {
            "network": w.network, "codec": w.codec, "text": w.text, "tokenizer": (w.tokenizer,), "clip": w.clip,
            "clip_tokenizer": (w.clip_tokenizer,), "preview": (w.preview,),
        }  # fmt: skip
        return {part: tuple(asset(w, name) for name in files) for part, files in names.items() if any(files)}
    found = {part: find_part(places, options) for part, places in spec.weights.parts().items()}
    if absent := [part for part, paths in found.items() if paths is None]:
        raise WeightsError(_absence(spec, spec.weights, absent, options))
    return {part: paths for part, paths in found.items() if paths is not None}


def _absence(spec: ModelSpec, weights: HubWeights, absent: list[Part], options: WeightOptions) -> Message:
    folder, shown = options.weights_dir, options.weights_name
    place = weights.parts()[absent[0]][0]
    files = shortened(f"{place.repo}/{place.files[0]}", len(place.files) - 1)
    first = message("weights.part_from", part=PART_NAMES[absent[0]], file=files)
    wanted = (first, *(PART_NAMES[part] for part in absent[1:]))
    pickles = [p for part in absent for p in weights.parts()[part] if p.files[0].endswith(PICKLES) and _find(p, folder)]
    if pickles:
        file = pickles[0].files[0]
        return message("weights.absent_pickle", model=spec.id, parts=wanted, folder=shown, file=file)
    return message("weights.absent", model=spec.id, parts=wanted, folder=shown, command=download_command(spec))


def unavailable_reason(spec: ModelSpec, options: WeightOptions) -> Message | None:
    """Why a model cannot be loaded; None when it can."""
    try:
        locate(spec, options)
    except WeightsError as error:
        return error.message
    return None


def checklist(spec: ModelSpec, options: WeightOptions) -> list[tuple[Message, HubFiles, bool]]:
    """The parts of a published model: each with the files it comes from, and whether it is here."""
    if spec.published is None:
        return []
    return [
        (PART_NAMES[part], places[0], find_part(places, options) is not None)
        for part, places in spec.published.parts().items()
    ]


def download_bytes(spec: ModelSpec, options: WeightOptions) -> int:
    """About how much a download would fetch."""
    return sum(place.size_bytes for place in missing_places(spec, options))


def download_command(spec: ModelSpec) -> str:
    """What fetches a model, typed into a terminal."""
    return f"python -m opensora_demo download {spec.id}"


def free_bytes(folder: Path) -> int:
    """The room on the disk of a folder that may not be there yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


# --- fetching


def missing_places(spec: ModelSpec, options: WeightOptions) -> list[HubFiles]:
    """What a download would fetch: the first place of each part that is not here."""
    if spec.published is None:
        return []
    return [places[0] for places in spec.published.parts().values() if find_part(places, options) is None]


def download(spec: ModelSpec, options: WeightOptions, cancel: Flag | None = None) -> Iterator[Fetching]:
    """Fetch what a model lacks into the local folder. Raises WeightsError with the reason, Cancelled when `cancel` is
    set; what has come so far stays, and the next call goes on from there. One download at a time into one folder,
    whichever process does it."""
    if not missing_places(spec, options):
        return
    folder = options.weights_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".download.lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise WeightsError(message("weights.busy")) from None
    except OSError:
        raise WeightsError(message("weights.no_folder", folder=str(folder))) from None
    try:
        yield from _download(spec, options, cancel)
    finally:
        lock.release()


def _download(spec: ModelSpec, options: WeightOptions, cancel: Flag | None) -> Iterator[Fetching]:
    wanted = [(place, name) for place in missing_places(spec, options) for name in place.files]
    if options.offline:
        raise WeightsError(message("weights.offline", model=spec.id, count=len(wanted)))
    remotes = [_Remote.of(place, name, options.weights_dir) for place, name in wanted]
    total = sum(remote.size_bytes for remote in remotes)
    _check_room(total - sum(remote.here_bytes() for remote in remotes), options.weights_dir)
    before = 0
    for remote in remotes:
        for done in remote.fetch():
            yield Fetching(remote.name, before + done, total)
            if cancel is not None and cancel.is_set():
                raise Cancelled(message("weights.download_stopped"))
        before += remote.size_bytes


@contextmanager
def _hub_errors(repo: str, name: str) -> Iterator[None]:
    """Turn what the hub's client raises into a WeightsError with the cause and the way out."""
    from huggingface_hub import errors

    what = f"{repo}/{name}"
    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError:
        raise WeightsError(message("weights.gated", file=what)) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(message("weights.private", file=what)) from None
    except errors.RevisionNotFoundError:
        raise WeightsError(message("weights.no_commit", file=what)) from None
    except errors.EntryNotFoundError:
        raise WeightsError(message("weights.no_entry", file=what)) from None
    except errors.HfHubHTTPError as error:
        raise WeightsError(message("weights.hub_answers", file=what, answer=str(error))) from None
    except OSError as error:
        raise WeightsError(message("weights.no_write", file=what, reason=error.strerror or str(error))) from None
    except Exception as error:  # of the HTTP library, whichever the client uses: no network, a broken connection
        raise WeightsError(message("weights.no_hub", file=what, reason=f"{type(error).__name__}: {error}")) from None


def _check_room(bytes_: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_ > free:
        raise WeightsError(
            message("weights.no_room", need=f"{bytes_ / 1e9:.1f}", folder=str(folder), free=f"{free / 1e9:.1f}")
        )


@dataclass(frozen=True, slots=True)
class _Remote:
    """One file on the hub as it is now: where, how large, its SHA-256 or, of a small file, the SHA-1 that git names it
    by, where the hub tells it; and the folder it goes to."""

    folder: Path
    repo: str
    name: str
    url: str
    commit: str
    size_bytes: int
    digest: str | None  # in hexadecimal; its length says which

    @property
    def target(self) -> Path:
        return self.folder / self.repo.split("/")[1] / self.name

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def manifest_file(self) -> Path:
        """What the file is and where it is from; it stays beside it."""
        return self.target.with_name(self.target.name + ".json")

    @classmethod
    def of(cls, place: HubFiles, name: str, folder: Path) -> _Remote:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(place.repo, name, revision=place.revision)
        with _hub_errors(place.repo, name):
            about = get_hf_file_metadata(url)
        if about.size is None or about.commit_hash is None:
            raise WeightsError(message("weights.no_size", file=f"{place.repo}/{name}"))
        etag = about.etag or ""
        digest = etag if len(etag) in (_SHA1, _SHA256) else None
        return cls(folder, place.repo, name, url, about.commit_hash, about.size, digest)

    def manifest(self) -> dict[str, Any]:
        about = {"repo": self.repo, "file": self.name, "commit": self.commit, "bytes": self.size_bytes}
        if self.digest is None:
            return about
        return about | {"sha256" if len(self.digest) == _SHA256 else "git_sha1": self.digest}

    def here_bytes(self) -> int:
        """How much of it an earlier download of the same content left."""
        try:
            if json.loads(self.manifest_file.read_text("utf-8")) != self.manifest():
                return 0
            if self.target.is_file():  # one of several, of which another is missing
                return self.size_bytes
            return min(self.part.stat().st_size, self.size_bytes)
        except (OSError, ValueError):
            return 0

    def fetch(self) -> Iterator[int]:
        """Bytes that are here, again and again until all of them are."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        here = self.here_bytes()
        if here == self.size_bytes and self.target.is_file():
            yield here
            return
        with _hub_errors(self.repo, self.name):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            if not here:
                self.part.unlink(missing_ok=True)
                self.manifest_file.write_text(json.dumps(self.manifest()), "utf-8")
        yield here
        if here < self.size_bytes:
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={here}-"} if here else {}
            with (
                _hub_errors(self.repo, self.name),
                get_session().stream(
                    "GET", self.url, headers=headers, follow_redirects=True, timeout=_SILENCE_S
                ) as answer,
            ):
                answer.raise_for_status()
                if here and answer.status_code != 206:
                    here = 0  # the server does not continue
                with self.part.open("ab" if here else "wb") as out:
                    for block in answer.iter_raw(_BLOCK_BYTES):
                        out.write(block)
                        here += len(block)
                        yield here
        with _hub_errors(self.repo, self.name):
            self._check(self.part.stat().st_size)
            self.part.replace(self.target)

    def _check(self, here: int) -> None:
        wrong: Message | None = None
        if here != self.size_bytes:
            wrong = message("weights.short", file=self.name, got=here, expected=self.size_bytes)
        elif self.digest is not None:
            with self.part.open("rb") as file:
                if _digest(file, here, self.digest) != self.digest:
                    wrong = message("weights.checksum", file=self.name)
        if wrong:
            if here >= self.size_bytes:
                self.part.unlink()  # a shorter one can still be continued
            raise WeightsError(wrong)


def _digest(file: BufferedReader, size_bytes: int, like: str) -> str:
    """The SHA-256 of a file, or its name in git, a SHA-1 with a header before it."""
    if len(like) == _SHA256:
        return hashlib.file_digest(file, "sha256").hexdigest()

    def named() -> Any:
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)

    return hashlib.file_digest(file, named).hexdigest()
