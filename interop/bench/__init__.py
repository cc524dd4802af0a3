"""Benchmarks: `python -m interop.bench`; see `__main__` for the flags.

benchmarks.py   the table: names, units, who takes part, how much, how often
measures.py     how each measures once;  cost.py: CPU time and memory of a process
gossip.py       that of gossip, which searches the highest rate
stage.py        the processes, one for each end and role;  ends/: those in Python
runner.py       rounds over pairings, all benchmarks on one stage
report.py       tables, JSON, files;  chart.py, floors.py, machine.py: parts of them
"""
