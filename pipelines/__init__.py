if __name__ != "tilth.pipelines":
    raise ImportError(f"import this package as 'tilth.pipelines', not as {__name__!r}")
