"""`python -m ganeum`: the same as the `ganeum` command, with this very Python."""

from ganeum.cli import main

if __name__ == "__main__":
    main()
