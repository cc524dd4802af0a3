"""libp2p's Kademlia: who is near a key, what is stored there, who provides it.

`engine` (answers), `lookup`, `table` and `records` are rules without I/O; `service.Kademlia` runs them on streams.
"""
