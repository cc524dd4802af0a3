"""From a socket to streams: which security and which muxer (multistream), and the guards around py-libp2p's own."""
