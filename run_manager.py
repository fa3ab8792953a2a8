"""Run the experiments of experiment_list.conf, one after the other: `python run_manager.py`; see `ganeum queue`."""

import sys

from ganeum.cli import main

if __name__ == "__main__":
    main(["queue", *sys.argv[1:]])
