"""A Kedro project whose stages are ganeum's."""
