"""Sources of peers: each finds some and has them dialled."""
