"""What runs inside the network of docker-compose.yml beside its nodes; docs/docker.md."""
