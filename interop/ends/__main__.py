"""`python -m interop.ends vouch|stock [flags]`: see the package."""

from __future__ import annotations

import logging
import os
import sys

from interop.ends import mutate
from interop.ends.flags import Flags


def main() -> None:
    name, *argv = sys.argv[1:] or ("--help",)
    if name not in ("vouch", "stock"):
        sys.exit("usage: interop.ends vouch|stock [flags]")
    flags = Flags.parse(argv)
    mutate.install(os.environ.get(mutate.VARIABLE, ""))
    if not os.environ.get("INTEROP_LOGS"):
        logging.disable(logging.CRITICAL)  # what it says of connections that end is not of interest
    # only now: what they import may be changed by then
    import trio

    from interop.bench.ends.lines import serve

    if name == "vouch":
        from interop.ends.vouch import vouch

        trio.run(serve, vouch(flags))
    else:
        from interop.ends.stock import stock

        trio.run(serve, stock(flags))


if __name__ == "__main__":
    main()
