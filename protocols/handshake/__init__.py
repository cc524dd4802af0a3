"""`/vouch/handshake/1.0.0`: peers show one network ID and a fitting client version before all else."""
