"""`/vouch/peer-exchange/1.0.0`: peers tell each other of peers that they have tested, each with its own signed record."""
