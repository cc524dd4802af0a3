"""Networks that exist in one process only: the same rules as in production, simulated time, links of our making."""
