"""COCO instances again, under the name of the format that is written with polygons: one reader takes both."""

from __future__ import annotations

import dataclasses

from clipseg_cli.data.annotations import coco

FORMAT = dataclasses.replace(coco.FORMAT, recognise=lambda path: False, summary="the same as coco")
