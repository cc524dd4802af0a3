"""The node as a program in libp2p's own test suites: docs/contracts.md."""
