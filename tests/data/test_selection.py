import torch
from hypothesis import given
from hypothesis import strategies as st

from hosnn.data.selection import balanced_rows, shuffled_rank_in_class, splitmix64

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


def test_splitmix64_is_the_published_generator() -> None:
    first_outputs = (splitmix64(torch.tensor([0, 1234567])).numpy().astype(object) + 2**63).tolist()
    assert first_outputs == [0xE220A8397B1DCDAF, 6457827717110365317]


@given(LABELS)
def test_ranks_count_up_from_zero_within_each_class(labels: torch.Tensor) -> None:
    ranks = shuffled_rank_in_class(labels, torch.arange(len(labels)))
    for label in set(labels.tolist()):
        of_class = ranks[labels == label]
        assert of_class.sort().values.tolist() == list(range(len(of_class)))


@given(LABELS, st.randoms(use_true_random=False))
def test_a_row_keeps_its_rank_wherever_it_stands(labels: torch.Tensor, random: object) -> None:
    index = torch.arange(len(labels))
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = torch.tensor(order)
    assert torch.equal(
        shuffled_rank_in_class(labels[shuffled], index[shuffled]), shuffled_rank_in_class(labels, index)[shuffled]
    )


@given(st.integers(0, 40))
def test_balanced_rows_are_even_and_nested(count: int) -> None:
    labels = torch.arange(40) % 4
    rows = balanced_rows(labels, torch.arange(40), count)
    assert len(set(rows.tolist())) == count
    sizes = torch.bincount(labels[rows], minlength=4)
    assert sizes.max() - sizes.min() <= 1
    assert set(rows.tolist()) <= set(balanced_rows(labels, torch.arange(40), min(count + 1, 40)).tolist())
