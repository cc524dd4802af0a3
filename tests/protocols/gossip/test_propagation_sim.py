"""The simulation beside `vouch measure propagation`: the same links and publishers, the cores of one machine."""

from __future__ import annotations

from interop.lab.propagation import ROWS, side_by_side, simulate

GIVEN = {"rate": 10.0, "seed": 1}


def test_everything_arrives_and_the_seed_decides():
    found = simulate(12, 20, 256, work=0.0004, cores=2, **GIVEN)
    assert found.coverage == 1
    assert found.links == 12 * 8 // 2
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms <= found.max_ms
    assert found.duplicates > 0
    assert found.bytes_per_byte > 1
    assert found == simulate(12, 20, 256, work=0.0004, cores=2, **GIVEN)


def test_one_core_is_slower_than_four():
    one, four = (simulate(12, 20, 256, work=0.0004, cores=cores, **GIVEN) for cores in (1, 4))
    assert one.p50_ms > four.p50_ms


def test_a_node_alone_on_a_link():
    found = simulate(2, 5, 64, work=0.002, cores=1, full_mesh=True, **GIVEN)
    assert (found.coverage, found.p50_ms, found.max_ms, found.hops_max) == (1, 2.0, 2.0, 1)


def test_side_by_side():
    found = simulate(2, 1, 64, work=0.001, cores=1, **GIVEN)
    table = side_by_side(found, found)
    assert all(f"| `{name}` | " in table for name in ROWS)
