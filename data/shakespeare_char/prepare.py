"""nanoGPT's Shakespeare, character by character → train.bin and val.bin beside this file; offline: --input FILE."""

import sys
from pathlib import Path

from ganeum.cli import main

if __name__ == "__main__":
    main(["prepare", "shakespeare_char", "--out", str(Path(__file__).resolve().parent), *sys.argv[1:]])
