"""Rules about peers and their connections: limits, backoff, which of two connections stays. No I/O."""
