"""The matrix: whether our node works with each other implementation, over everything that both speak.

    python -m interop.matrix                                    all of it; writes docs/interop.md
    python -m interop.matrix --peer go --quick --json           one cell a line
    python -m interop.matrix --mutate                           what must fail with a byte of our wire changed, does

A line of the matrix is a peer, a transport, a security and who dials; a cell is one check on a line. `cells.py` says
which there are, `ends.py` how ends are started, `checks/` what is checked on two of them, `run.py` runs them,
`report.py` tells. A cell says

    pass       it works
    fail       it doesn't, and why
    upstream   it doesn't, and a program in `upstream/`, without any code of ours, has just shown whose fault that is
    na         there is nothing to check, and why
"""
