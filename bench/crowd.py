"""Many small services: the source of one app with as many functions as asked for."""


def source(app: str, functions: int, **options: object) -> str:
    """Python source of an app whose functions `f0`, `f1`, … answer their own number."""
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    parts = [f'"""One of many."""\n\nimport swell\n\napp = swell.App({app!r})\n']
    parts += [f"\n\n@app.function({words})\ndef f{n}() -> int:\n    return {n}\n" for n in range(functions)]
    return "".join(parts)
