"""What happens to rows: rules are pure functions on polars frames, Beam is a thin shell over them."""

if __name__ != "tilth.transforms":
    raise ImportError(f"import this package as 'tilth.transforms', not as {__name__!r}")
