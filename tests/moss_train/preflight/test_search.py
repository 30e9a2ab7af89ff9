"""Finding bad nodes by pairs: exactly they, whoever they are, in few rounds of pairs that do not disturb each other."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moss_train.preflight.search import ROUNDS, Pair, find_bad, pair_rounds


@given(st.integers(2, 20), st.integers(1, 30))
def test_rounds_hold_every_pair_once(nodes: int, most: int) -> None:
    rounds = pair_rounds(range(nodes), most)
    pairs = [pair for pairs in rounds for pair in pairs]
    assert len(pairs) == len(set(pairs)) and all(a < b for a, b in pairs)
    for pairs_of_round in rounds:
        used = [node for pair in pairs_of_round for node in pair]
        assert len(used) == len(set(used)) >= nodes - 1
    if most >= nodes:
        assert len(pairs) == nodes * (nodes - 1) // 2


@given(st.integers(3, 16), st.data())
def test_minority_of_bad_nodes_is_found(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=(count - 1) // 2))
    tried: list[Sequence[Pair]] = []

    def try_pairs(pairs: Sequence[Pair]) -> dict[Pair, bool]:
        used = [node for pair in pairs for node in pair]
        assert len(used) == len(set(used))
        tried.append(pairs)
        return {pair: not bad & set(pair) for pair in pairs}

    found, good = find_bad(list(range(count)), try_pairs)
    assert set(found) == bad and set(good) == set(range(count)) - bad
    assert len(tried) <= ROUNDS + count


def test_nobody_is_named_where_no_pair_works() -> None:
    assert find_bad([0, 1, 2, 3], lambda pairs: dict.fromkeys(pairs, False)) == ([], [])
