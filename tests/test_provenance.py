"""Several processes' provenances told as one, and what of it should not have differed."""

from piebench_masks.provenance import provenance, union

ONE = {"versions": {"torch": "2", "numpy": "1"}, "commit": "a", "device": "cpu", "argv": ["x"]}
TWO = ONE | {"versions": {"torch": "3", "numpy": "1"}, "device": "cuda:0", "argv": ["x", "y"]}


def test_a_union_lists_what_there_was_once_and_names_what_is_mixed() -> None:
    assert union([ONE, TWO, ONE]) == {
        "versions": {"torch": ["2", "3"], "numpy": ["1"]},
        "commit": ["a"],
        "device": ["cpu", "cuda:0"],
        "argv": [["x"], ["x", "y"]],
        "mixed": ["versions.torch"],
        "unknown": 0,
    }
    assert union([ONE, TWO | {"commit": None}])["mixed"] == ["commit", "versions.torch"]


def test_what_has_no_known_origin_is_counted() -> None:
    assert union([None, ONE, None])["unknown"] == 2
    assert union([]) == {"mixed": [], "unknown": 0}


def test_a_process_is_of_one_kind() -> None:
    assert union([provenance()])["mixed"] == []
