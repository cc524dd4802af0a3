"""mDNS peer discovery (specs/discovery/mdns.md of libp2p): peers on one link find each other by multicast."""
