"""The loop above the step: checkpoints, evaluation, samples, logging, interruption."""
