"""What may have to be fetched, weights and tokenizers: from the cache, else the network, else one sentence.

open_clip and huggingface_hub alone retry for most of a minute and print twenty warnings when there is no
network. So: look into the caches first, ask once, for seconds, whether anybody answers, and only then let them
download.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import ssl
import threading
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants

from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.errors import ModelError, hinting
from clipseg_cli.utils.imports import module_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger(__name__)

T = TypeVar("T")

_counting = threading.Lock()
_quiet_threads = 0
_loudness = contextlib.ExitStack()
"""How many threads want it quiet, and what makes it loud again."""

PROBE_SECONDS = 3.0
"""How long a server may take to say anything at all before it counts as unreachable."""

HF_SAFE = "model.safetensors"
"""What libraries call the weights of a model, where they are in one file."""

WAYS_OUT = (
    "three ways out: another --pretrained TAG ('clipseg models --cached' lists those on this machine), "
    f"a local file with --pretrained FILE, or the bundled model with --model {BUNDLED_MODEL}"
)


def cached_weights(tag_config: Mapping[str, Any]) -> Path | None:
    """The file of a tag in the hub's cache or in the folder of OpenAI's own package; else None."""
    repository, _, filename = str(tag_config.get("hf_hub", "")).rpartition("/")
    if repository:
        names = module_alone("open_clip", "constants")
        wanted = [filename or names.HF_WEIGHTS_NAME]
        if not filename:
            wanted.insert(0, names.HF_SAFE_WEIGHTS_NAME)
        elif filename.endswith((".bin", ".pth")):
            wanted.insert(0, filename[:-4] + ".safetensors")
        for name in wanted:
            found = huggingface_hub.try_to_load_from_cache(repository, name)
            if isinstance(found, str):
                return Path(found)
    name = Path(urlsplit(str(tag_config.get("url", ""))).path).name
    downloaded = Path("~/.cache/clip").expanduser() / name
    return downloaded if name and downloaded.is_file() else None


def is_cached(repository: str) -> bool:
    """Whether a repository of the hub is on this machine: its weights, as far as they are one file."""
    found = huggingface_hub.try_to_load_from_cache(repository, HF_SAFE)
    return isinstance(found, str)


@functools.cache
def online() -> bool:
    """Whether the hub may be asked, and answers; asked once in a process."""
    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


def fetch_weights(tag_config: Mapping[str, Any], what: str) -> Path:
    """The file of a tag, downloaded if it is in no cache.

    Args:
        tag_config: entry of `open_clip.pretrained`.
        what: for messages, "ViT-B-16 / openai".

    Raises:
        ModelError: not cached, and no network or a failed download; comes within 10 s without network.
    """
    if cached := cached_weights(tag_config):
        return cached
    require_network(what, "" if "hf_hub" in tag_config else str(tag_config.get("url", "")))
    with quiet(), _failures(what):
        return Path(download_pretrained(tag_config))


def download_pretrained(tag_config: Mapping[str, Any]) -> str:
    """open_clip's own download of a tag, into the cache of the hub or of OpenAI's package."""
    path: str = module_alone("open_clip", "pretrained").download_pretrained(dict(tag_config))
    return path


def fetch_timm_weights(config: Mapping[str, Any], what: str, hint: str) -> Path:
    """The file that timm publishes for a network, downloaded if it is in no cache.

    Args:
        config: its `pretrained_cfg`, as a dictionary.
        what, hint: for messages.

    Raises:
        ModelError: as `fetch_weights`.
    """
    repository, url = config.get("hf_hub_id"), config.get("url")
    if not (repository or url):
        raise ModelError(f"timm has no weights for {config['architecture']}", hint=hint)
    file = f"{repository}/{config.get('hf_hub_filename') or 'model.safetensors'}"
    with hinting(hint):
        return fetch_weights({"hf_hub": file} if repository else {"url": url}, what)


def with_cache_first(load: Callable[[bool], T], what: str) -> T:
    """What is loaded from the cache alone, `load(True)`, and only if that fails with the network, `load(False)`.

    Raises:
        ModelError: neither works.
    """
    with quiet():
        try:
            return load(True)
        except ImportError as error:  # the network cannot mend that
            raise ModelError(
                f"{what} cannot be loaded: {error}", hint="install the missing package"
            ) from error
        except Exception as error:  # whatever the hub's client makes of a file that is not there
            failure = error
    logger.info("%s is not in the cache: %s", what, failure)
    require_network(what)
    with quiet(), _failures(what):
        return load(False)


def require_network(what: str, url: str = "") -> None:
    """Prove within a few seconds that the hub answers, or whoever else has a file.

    Args:
        what: for messages.
        url: of the file; empty for the hub.

    Raises:
        ModelError: it does not; names the ways out.
    """
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{what} is not on this machine, and HF_HUB_OFFLINE forbids fetching it", hint=WAYS_OUT
        )
    place = url or constants.ENDPOINT
    if not reachable(place):
        host = urlsplit(place).hostname or place
        raise ModelError(f"{what} is not on this machine, and {host} cannot be reached", hint=WAYS_OUT)


def reachable(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether `url` gives any answer in time. Honours the proxies of the environment."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < 500 and error.code != 407)  # 407: a proxy that lets nobody through
        except urllib.error.URLError as error:
            # Somebody is there whose certificate is unknown: let the hub decide.
            answers.append(isinstance(error.reason, ssl.SSLCertVerificationError))
        except (OSError, ValueError):
            answers.append(False)

    # In a thread, because a resolver without network may hang for longer than any socket timeout.
    probe = threading.Thread(target=ask, daemon=True)
    probe.start()
    probe.join(seconds)
    return answers == [True]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines and warnings of other packages on stderr; everything as before afterwards.

    It holds for the whole process, from the first thread that asks for it to the last.
    """
    global _quiet_threads
    with _counting:
        if _quiet_threads == 0:
            _loudness.enter_context(_silence())
        _quiet_threads += 1
    try:
        yield
    finally:
        with _counting:
            _quiet_threads -= 1
            if _quiet_threads == 0:
                _loudness.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    root, level = logging.getLogger(), logging.root.manager.disable
    # logging.info() on a root logger without handlers would install one that prints, for good.
    silencer = logging.NullHandler()
    root.addHandler(silencer)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(silencer)


@contextlib.contextmanager
def _failures(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise ModelError(f"cannot fetch {what}: {reason[:200]}", hint=WAYS_OUT) from error
