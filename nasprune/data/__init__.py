"""Real data in four disjoint parts: training, calibration, validation and test.

Import from here: `load_data`, `DataSplits`, `batches`.
May import: `errors`, `common`.
"""

from nasprune.data.load import check_fits, load_data
from nasprune.data.splits import ArrayDataset, DataSplits, LabelledImages

__all__ = ["ArrayDataset", "DataSplits", "LabelledImages", "check_fits", "load_data"]
