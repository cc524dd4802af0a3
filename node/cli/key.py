"""`vouch key`: make an identity, or tell whose a key file is. Needs no node, and doesn't import libp2p."""

from __future__ import annotations

import argparse
import json
import sys

from node.identity import Identity, key_file_warning, load_key, write_key


def generate(args: argparse.Namespace) -> int:
    """Print a new peer ID and its secret, or write the secret to `--out` and print the peer ID alone."""
    identity = Identity.generate()
    if args.out is not None:
        write_key(args.out, identity)
    if args.json:
        answer = {"peer_id": identity.peer_id}
        answer |= {"file": str(args.out)} if args.out is not None else {"secret": identity.secret.hex()}
        print(json.dumps(answer))
    else:
        print(identity.peer_id)
        if args.out is None:
            print(identity.secret.hex())
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Print the peer ID of a key file; warn on stderr if others than its owner can read it."""
    identity = load_key(args.file)
    if warning := key_file_warning(args.file):
        print("vouch: warning:", warning, file=sys.stderr)
    if args.json:
        print(json.dumps({"peer_id": identity.peer_id, "type": "ed25519", "file": str(args.file)}))
    else:
        print(identity.peer_id)
    return 0
