"""docs/doctor_accuracy.md, from the campaign's results."""


def write(lines):
    raise SystemExit("later")
