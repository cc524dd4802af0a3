"""How operators and programs address a running node: one set of typed functions, and the sockets that carry them."""
