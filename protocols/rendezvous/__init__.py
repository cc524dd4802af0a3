"""`/rendezvous/1.0.0`: peers register at a point under a namespace, and others discover them there."""
