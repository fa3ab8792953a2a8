"""Run the experiments of experiment_list.conf: `python run_manager.py`, which is `ganeum queue experiments`."""

import sys

from ganeum.cli import main

if __name__ == "__main__":
    main(["queue", *sys.argv[1:]])
