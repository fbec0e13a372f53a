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
from pathlib import Path
from threading import Event as Flag
from typing import Any

from filelock import FileLock, Timeout

from opensora_demo.catalog import ModelSpec, RandomWeights, WeightFiles
from opensora_demo.catalog.spec import HubFiles, HubWeights, Part
from opensora_demo.errors import Cancelled, WeightsError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PART_NAMES: Mapping[Part, str] = {
    "network": "transformer",
    "codec": "VAE",
    "text": "T5 text encoder",
    "tokenizer": "T5 tokenizer",
    "clip": "CLIP text encoder",
    "clip_tokenizer": "CLIP tokenizer",
    "preview": "preview matrix",
}
PICKLES = (".pth", ".pt", ".bin")
_COMMON = {"model.safetensors", "diffusion_pytorch_model.safetensors", "spiece.model", "tokenizer.json"}
_BLOCK_BYTES = 1 << 20
_SILENCE_S = 30.0  # of a connection, after which it counts as broken

Located = dict[Part, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Fetching:
    """A download goes on: the file by its name, bytes of all files that are here, and of all there will be."""

    file: str
    done_bytes: int
    total_bytes: int


def weights_folder() -> Path:
    """Where published weights are looked for first, and put: OPENSORA_WEIGHTS, or `weights` of the working folder."""
    return Path(os.environ.get("OPENSORA_WEIGHTS") or "weights")


def fitted_preview(spec: ModelSpec) -> Path:
    """Where `training.previews` puts a model's preview matrix."""
    return weights_folder() / "previews" / f"{spec.id}.safetensors"


def tiny_decoder(spec: ModelSpec) -> Path | None:
    """The file of a model's small decoder for previews, if it is among the weights: as its repository has it, in it or
    by itself."""
    if spec.tiny is None:
        return None
    names = [f"{folder}{spec.tiny.file}.safetensors" for folder in ("", "taehv/", "taehv/safetensors/")]
    if pickles_allowed():
        names += [f"{folder}{spec.tiny.file}.pth" for folder in ("", "taehv/")]
    return next((file for name in names if (file := weights_folder() / name).is_file()), None)


def pickles_allowed() -> bool:
    """Whether .pth and .bin files may be opened (OPENSORA_ALLOW_PICKLE=1, or --allow-pickle)."""
    return os.environ.get("OPENSORA_ALLOW_PICKLE") == "1"


def offline() -> bool:
    """Whether the hub must not be asked (OPENSORA_OFFLINE=1, --offline, or the hub's own HF_HUB_OFFLINE=1)."""
    return any(os.environ.get(name, "").upper() in ("1", "TRUE") for name in ("OPENSORA_OFFLINE", "HF_HUB_OFFLINE"))


# --- finding


def _find(place: HubFiles) -> tuple[Path, ...] | None:
    """The files of one place, all from the local folder or all from the hub's cache."""
    root = weights_folder()
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


def find_part(places: tuple[HubFiles, ...]) -> tuple[Path, ...] | None:
    """The files of a part in the first place that is here; pickles count only where they are allowed."""
    for place in places:
        if not pickles_allowed() and place.files[0].endswith(PICKLES):
            continue
        if found := _find(place):
            return found
    return None


def locate(spec: ModelSpec) -> Located:
    """The files of every part. Raises WeightsError saying which are missing, where they belong and how to get them."""
    if isinstance(spec.weights, RandomWeights):
        tokenizer = (ASSETS / spec.weights.tokenizer,)
        return {"tokenizer": tokenizer, "clip_tokenizer": tokenizer}
    if isinstance(spec.weights, WeightFiles):
        w, folder = spec.weights, ASSETS / spec.weights.folder
        if missing := [name for name in w.all_files() if not (folder / name).is_file()]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise WeightsError(f"{spec.id} needs {', '.join(missing[:3])}{more} in {folder}")
        names: dict[Part, tuple[str, ...]] = {
            "network": w.network, "codec": w.codec, "text": w.text, "tokenizer": (w.tokenizer,), "clip": w.clip,
            "clip_tokenizer": (w.clip_tokenizer,), "preview": (w.preview,),
        }  # fmt: skip
        return {part: tuple(folder / name for name in files) for part, files in names.items() if any(files)}
    found = {part: find_part(places) for part, places in spec.weights.parts().items()}
    if absent := [part for part, paths in found.items() if paths is None]:
        raise WeightsError(_absence(spec, spec.weights, absent))
    return {part: paths for part, paths in found.items() if paths is not None}


def _absence(spec: ModelSpec, weights: HubWeights, absent: list[Part]) -> str:
    first = f"{PART_NAMES[absent[0]]} ({_shown(weights.parts()[absent[0]][0])})"
    wanted = ", ".join([first, *(PART_NAMES[part] for part in absent[1:])])
    sentence = f"{spec.id} lacks its {wanted} in {weights_folder()} or the hub's cache"
    pickles = [p for part in absent for p in weights.parts()[part] if p.files[0].endswith(PICKLES) and _find(p)]
    if pickles:
        return f"{sentence}; {pickles[0].files[0]} is there, but a pickle: --allow-pickle reads it (tensors only)"
    return f"{sentence}; to get them: python -m opensora_demo download {spec.id}"


def _shown(place: HubFiles) -> str:
    return f"{place.repo}/{place.files[0]}" + (f" and {len(place.files) - 1} more" if len(place.files) > 1 else "")


def why_not(spec: ModelSpec) -> str:
    """Why a model cannot be loaded, in a sentence; empty when it can."""
    try:
        locate(spec)
    except WeightsError as error:
        return str(error)
    return ""


# --- fetching


def missing_places(spec: ModelSpec) -> list[HubFiles]:
    """What a download would fetch: the first place of each part that is not here."""
    if not isinstance(spec.weights, HubWeights):
        return []
    return [places[0] for places in spec.weights.parts().values() if find_part(places) is None]


def download(spec: ModelSpec, cancel: Flag | None = None) -> Iterator[Fetching]:
    """Fetch what a model lacks into the local folder. Raises WeightsError with the reason, Cancelled when `cancel` is
    set; what has come so far stays, and the next call goes on from there. One download at a time into one folder,
    whichever process does it."""
    if not missing_places(spec):
        return
    folder = weights_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".download.lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise WeightsError("another download is going on here") from None
    except OSError:
        raise WeightsError(f"nothing can be written into the folder {folder}") from None
    try:
        yield from _download(spec, cancel)
    finally:
        lock.release()


def _download(spec: ModelSpec, cancel: Flag | None) -> Iterator[Fetching]:
    wanted = [(place, name) for place in missing_places(spec) for name in place.files]
    if offline():
        raise WeightsError(f"{spec.id} lacks {len(wanted)} of its files, and the hub is not asked (offline)")
    remotes = [_Remote.of(place, name) for place, name in wanted]
    total = sum(remote.size_bytes for remote in remotes)
    _check_room(total - sum(remote.here_bytes() for remote in remotes))
    before = 0
    for remote in remotes:
        for done in remote.fetch():
            yield Fetching(remote.name, before + done, total)
            if cancel is not None and cancel.is_set():
                raise Cancelled("the download was stopped; the next one goes on from here")
        before += remote.size_bytes


@contextmanager
def _sentences(repo: str, name: str) -> Iterator[None]:
    """Turn what the hub's client raises into a WeightsError with the cause and the way out."""
    from huggingface_hub import errors

    what = f"{repo}/{name}"
    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError:
        raise WeightsError(f"{what} is gated: accept its terms on its page, then `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(f"{what} is not on the hub, or private: `hf auth login` if you have access") from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{what} no longer has the commit that was looked at") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{what} is not in its repository any more") from None
    except errors.HfHubHTTPError as error:
        raise WeightsError(f"{what}: the hub answers {error}") from None
    except OSError as error:
        raise WeightsError(f"{what} cannot be written: {error.strerror or error}") from None
    except Exception as error:  # of the HTTP library, whichever the client uses: no network, a broken connection
        raise WeightsError(f"{what}: the hub cannot be reached ({type(error).__name__}: {error})") from None


def _check_room(bytes_: int) -> None:
    folder = weights_folder()
    free = shutil.disk_usage(folder).free
    if bytes_ > free:
        raise WeightsError(
            f"{bytes_ / 1e9:.1f} GB have to come, and {folder} has room for {free / 1e9:.1f} GB; "
            "set OPENSORA_WEIGHTS to a folder on a larger disk"
        )


@dataclass(frozen=True, slots=True)
class _Remote:
    """One file on the hub as it is now: where, how large, its SHA-256 where the hub tells it."""

    repo: str
    name: str
    url: str
    commit: str
    size_bytes: int
    sha256: str | None

    @property
    def target(self) -> Path:
        return weights_folder() / self.repo.split("/")[1] / self.name

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def story_file(self) -> Path:
        """What the file is and where it is from; it stays beside it."""
        return self.target.with_name(self.target.name + ".json")

    @classmethod
    def of(cls, place: HubFiles, name: str) -> _Remote:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(place.repo, name, revision=place.revision)
        with _sentences(place.repo, name):
            about = get_hf_file_metadata(url)
        if about.size is None or about.commit_hash is None:
            raise WeightsError(f"{place.repo}/{name}: the hub does not say how large it is")
        etag = about.etag or ""
        return cls(place.repo, name, url, about.commit_hash, about.size, etag if len(etag) == 64 else None)

    def story(self) -> dict[str, Any]:
        return {"repo": self.repo, "file": self.name, "commit": self.commit, "bytes": self.size_bytes} | (
            {"sha256": self.sha256} if self.sha256 else {}
        )

    def here_bytes(self) -> int:
        """How much of it an earlier download of the same content left."""
        try:
            if json.loads(self.story_file.read_text()) != self.story():
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
        with _sentences(self.repo, self.name):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            if not here:
                self.part.unlink(missing_ok=True)
                self.story_file.write_text(json.dumps(self.story()))
        yield here
        if here < self.size_bytes:
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={here}-"} if here else {}
            with (
                _sentences(self.repo, self.name),
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
        with _sentences(self.repo, self.name):
            self._check(self.part.stat().st_size)
            self.part.replace(self.target)

    def _check(self, here: int) -> None:
        wrong = f"{self.name} came with {here} bytes, not {self.size_bytes}" if here != self.size_bytes else ""
        if not wrong and self.sha256:
            with self.part.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                    wrong = f"{self.name} came damaged (its SHA-256 is another)"
        if wrong:
            if here >= self.size_bytes:
                self.part.unlink()  # a shorter one can still be continued
            raise WeightsError(f"{wrong}; run the download again")
