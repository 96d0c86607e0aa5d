"""Tables are read back from their JSON, whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from piebench_masks.report.edit_tables import editing_table
from piebench_masks.report.mask_tables import dice_table, method_table, threshold_table
from piebench_masks.report.table import Table


def test_a_table_is_read_back_as_it_was(segmentation, editing, columns, tmp_path: Path) -> None:
    defaults = {"ours": 0.7, "signed": 3.0}
    tables = {
        "dice": dice_table(segmentation),
        "methods": method_table(segmentation),
        "thresholds": threshold_table(segmentation, defaults),
        "editing": editing_table(editing, columns, {"ours": 0.5}),
        "unscored": editing_table(editing.assign(threshold=np.nan, mask_area=np.nan), columns, {}),
    }
    for stem, table in tables.items():
        table.write(tmp_path, stem)
        again = Table.read(tmp_path / f"{stem}.json")
        pd.testing.assert_frame_equal(
            again.frame, table.frame, check_dtype=False, check_names=False
        )
        assert again.cells() == table.cells() and again.formats == dict(table.formats)
        for name in ("title", "notes", "best", "sections", "muted"):
            assert getattr(again, name) == getattr(table, name)
        assert (again.to_csv(), again.to_latex()) == (table.to_csv(), table.to_latex())
        assert again.to_json() == table.to_json()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"title": 1}'])
def test_what_is_no_table_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "torn.json"
    path.write_text(content)
    with pytest.raises(ValueError):
        Table.read(path)
