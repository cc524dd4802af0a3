"""What strangers do to a node, and what a node must stand. Each fault that py-libp2p has is shown there first."""
