"""Random traffic between real nodes for a long time, and what must be left of it: `python -m interop.soak`."""
