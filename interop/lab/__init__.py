"""Networks of our making: in one process on simulated time, or of hosts in network namespaces (docs/lab.md)."""
