"""Gossip whose messages travel only once somebody has vouched for them: libp2p's gossipsub 1.2, without I/O.

`engine.Engine` is the router's rules; `rpc` and `fragments` are its bytes. How it works: docs/gossip.md.
"""
