"""One file = one output format; the folder is the registry. Files with an underscore serve them."""

from clipseg_cli.outputs._colors import class_colors, hex_color, voc_palette
from clipseg_cli.outputs._curves import draw_curves
from clipseg_cli.outputs._names import safe_name
from clipseg_cli.outputs._open import FORMATS, Outputs, format_names, shown_name
from clipseg_cli.outputs._own import refuse_strangers
from clipseg_cli.outputs._raster import jpeg_text, levels_text, nearest, runs_text, shrunk
from clipseg_cli.outputs._review import Entry, ReviewedImage, ReviewFiles, by_trust, review_entry
from clipseg_cli.outputs._run import (
    check_class_list,
    class_table_rows,
    folder_for,
    json_safe,
    write_run_info,
)
from clipseg_cli.outputs._scores import class_rows, write_scores
from clipseg_cli.outputs._sheet import (
    LabelRow,
    thumbnail,
    write_contact_sheet,
    write_label_sheet,
    write_sheet,
)
