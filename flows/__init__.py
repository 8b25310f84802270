if __name__ != "tilth.flows":
    raise ImportError(f"import this package as 'tilth.flows', not as {__name__!r}")
