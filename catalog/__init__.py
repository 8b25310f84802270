if __name__ != "tilth.catalog":
    raise ImportError(f"import this package as 'tilth.catalog', not as {__name__!r}")
