"""rust-libp2p can't reset a stream of QUIC: one that is dropped is ended, and its reader takes what was broken off for
whole. Over Yamux it is reset.

This runs interop/rust/src/bin/quic_reset.rs, two rust-libp2p transports in one process, which is built with the Rust
peer and has none of its code.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / ".built/rust-target/release/rust-quic-reset"

if __name__ == "__main__":
    if not PROGRAM.is_file():
        print(f"expected {PROGRAM.name}, which is built with the Rust peer: make peers PEERS=rust", file=sys.stderr)
        sys.exit(1)
    sys.exit(subprocess.run([str(PROGRAM)], check=False).returncode)
