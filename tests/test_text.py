import pytest

from graphpruning.common.names import nearest
from graphpruning.common.text import aligned


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_spaces():
    rows = [["layer", "out", "kind"], ["conv1", "16", ""], ["fc", "1,000", "linear"]]
    assert aligned(rows, right=(1,)) == [
        "layer    out  kind",
        "conv1     16",
        "fc     1,000  linear",
    ]


def test_no_rows_are_no_lines():
    assert aligned([]) == []


def test_a_row_with_a_cell_too_few_is_refused():
    with pytest.raises(ValueError):
        aligned([["layer", "out"], ["conv1"]])


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("resnet9", ["vgg11", "resnet8"], "resnet8"),
        ("zzz", ["vgg11"], "vgg11"),  # nothing alike: still an answer
        (7, [("a",), 71, 1000], "71"),
    ],
)
def test_the_nearest_name_is_the_one_spelled_most_alike(word, known, found):
    assert nearest(word, known) == found
