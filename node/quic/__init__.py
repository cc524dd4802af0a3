"""QUIC version 1 as libp2p speaks it: one UDP socket for each listen address, connections that are muxers already.

The transport, `node.quic.transport.Quic`, is imported by whoever puts a host together, and qh3 with it.
"""
