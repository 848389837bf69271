"""One file = one format of annotations that is read; the folder is the registry. Files with an underscore serve it."""

from clipseg_cli.data.annotations._choose import FORMATS, Chosen, choose, shown_name
from clipseg_cli.data.annotations._match import ImageNames
