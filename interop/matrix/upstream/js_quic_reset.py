"""@chainsafe/libp2p-quic 2.1: a stream that the peer resets looks like one that it has ended, and over TCP it doesn't.

The program itself is interop/js/upstream/quic_reset.js, on what `npm ci` has put there. Status 0: the defect is there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

JS = Path(__file__).parents[2] / "js"

sys.exit(subprocess.run([JS / "node_modules/.bin/node", "upstream/quic_reset.js"], cwd=JS, check=False).returncode)
