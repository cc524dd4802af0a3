"""`/vouch/peer-exchange/1.0.0`: peers tell of peers that they have tested, each by its own signed record."""
