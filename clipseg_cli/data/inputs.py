"""What `clipseg segment` is given: images, and videos, whose frames are images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clipseg_cli.data.image_files import find_images, result_folders
from clipseg_cli.errors import ImageError

if TYPE_CHECKING:
    from clipseg_cli.config import SegmentConfig
    from clipseg_cli.types import ImageSource

VIDEO_EXTENSIONS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"))


def find_inputs(config: SegmentConfig) -> tuple[list[ImageSource], list[ImageError]]:
    """Images as `find_images` finds them, and frames of the videos that are named as files, in the order given.

    The outputs of a frame lie in a folder that is called like the video, suffix included: `clip.mp4/000012.png`.
    """
    videos = [text for text in config.images if _is_video(Path(text))]
    others = [text for text in config.images if text not in videos]
    sources, failures = (
        find_images(others, exclude=result_folders(config.out), full_names=config.full_names)
        if others
        else ([], [])
    )
    taken: dict[str, str] = {}
    for text in dict.fromkeys(videos):
        from clipseg_cli.data.video import Video  # brings OpenCV

        path = Path(text)
        if other := taken.get(path.name):
            message = f"{text}: its frames would be called like those of {other}"
            failures.append(ImageError(message, hint="label them into folders of their own", image=text))
            continue
        try:
            frames = Video(path, config.every).sources(PurePosixPath(path.name))
        except ImageError as error:
            failures.append(error)
            continue
        taken[path.name] = text
        sources += frames
    return sources, failures


def _is_video(path: Path) -> bool:
    try:
        return path.suffix.lower() in VIDEO_EXTENSIONS and path.is_file()
    except OSError:
        return False
