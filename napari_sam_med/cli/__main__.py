"""``python -m napari_sam_med.cli``: the command line without its script."""

import sys

from napari_sam_med.cli import main

if __name__ == "__main__":
    sys.exit(main())
