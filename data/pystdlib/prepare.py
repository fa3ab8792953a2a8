"""Python's standard library → train.bin and val.bin beside this file; options as `ganeum prepare --help` says."""

import sys
from pathlib import Path

from ganeum.cli import main

if __name__ == "__main__":
    main(["prepare", "pystdlib", "--out", str(Path(__file__).resolve().parent), *sys.argv[1:]])
