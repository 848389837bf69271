"""What `clipseg serve` needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_cli.config.inference import InferenceConfig
from clipseg_cli.config.options import MAIN, OUTPUT, SERVER, again, option
from clipseg_cli.config.segment import SegmentConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeConfig(InferenceConfig):
    """A model that answers annotation tools over HTTP."""

    images: str = option(
        "",
        "Folder below which the images of tasks lie: the document root of Label Studio's local files, or its media "
        "folder.",
        panel=MAIN,
        metavar="DIR",
    )
    host: str = option(
        LOOPBACK[0],
        "Address to listen at; any but that of this machine itself needs --token.",
        panel=SERVER,
        metavar="HOST",
    )
    port: int = option(9090, "Port to listen at.", panel=SERVER, metavar="N", within=(1, 65_535))
    token: str = option(
        "",
        "What a request must bring, as a bearer or as the password of basic authentication. Also $CLIPSEG_TOKEN.",
        panel=SERVER,
        metavar="TEXT",
    )
    max_megabytes: float = option(
        32.0, "Refuse larger requests.", panel=SERVER, metavar="N", within=(0.001, 4096)
    )
    timeout: float = option(
        90.0,
        "Seconds after which a request that has not arrived, or has not been answered, is given up.",
        panel=SERVER,
        metavar="S",
        within=(0.1, 3600),
    )
    min_area: int = again(SegmentConfig, "min_area", panel=OUTPUT)
