"""Peers in other languages, what drives them, and the benchmarks. Not part of the distribution."""
