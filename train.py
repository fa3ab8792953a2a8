"""Train one experiment: `python train.py --config configs/exp_v100/test_run.yaml`; the same as `ganeum train`."""

import sys

from ganeum.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
