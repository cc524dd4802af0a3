"""Benchmarks: `python -m interop.bench NAME`, each a module of its own; see `__main__` for the flags."""
