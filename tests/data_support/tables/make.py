"""Makes the tables in this folder, which the tests read: `python make.py`, with pyarrow (26.0.1).

`cells.csv` has what `cells.parquet` has, but for the columns that no text holds; the other files
have the same table in other codecs and encodings. `refused-*.parquet` are in some that are not read.
"""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

HERE = Path(__file__).parent
N = 24
k = np.arange(N)

columns = {
    "barcode": pa.array([f"cell {i}" for i in k]),
    "day": pa.array([f"day {[0, 1.5, 3][i % 3]}" for i in k]),
    "hours": pa.array(k % 3 * 12, pa.int32()),
    # Eighths are the same in 32 bits; the second column is far from 0 and is not.
    "x": pa.array(k * 5 % 17 / 8 - 1, pa.float32()),
    "y": pa.array(1e6 + np.cos(k), pa.float64()),
    "half": pa.array((k * 7 % 11 / 4).astype(np.float16), pa.float16()),
    "count": pa.array(k * k, pa.int64()),
    "bytes": pa.array(255 - 9 * k, pa.uint8()),
    "large": pa.array([2**64 - 1 - int(i) for i in k], pa.uint64()),
    "treated": pa.array(k % 4 == 1),
    "celltype": pa.array([["HSC", "MPP", "Mono"][i % 5 % 3] for i in k]).dictionary_encode(),
    "dose": pa.array([[0.1, 0.25][i // 3 % 2] for i in k], pa.float32()),
    "weight": pa.array(0.5 + k % 3, pa.float64()),
    "rate": pa.array(np.sin(k) / 10, pa.float64()),
    "split": pa.array([["train", "train", "test"][i // 3 % 3] for i in k]),
    "gaps": pa.array([None if i % 6 == 4 else i / 2 for i in k], pa.float64()),
    "remark": pa.array([None if i % 2 else "a" for i in k], pa.string()),
}
table = pa.table(columns)
texts = {**columns, "treated": pa.array([str(i % 4 == 1) for i in k])}  # as pandas spells them
pa.csv.write_csv(pa.table(texts), HERE / "cells.csv", pa.csv.WriteOptions(quoting_style="needed"))

# Types that no text holds.
more = table.append_column("steps", pa.array([[int(i)] * (i % 3) for i in k]))
more = more.append_column("when", pa.array([datetime.datetime(2026, 1, 1 + i) for i in k]))
more = more.append_column("place", pa.StructArray.from_arrays([pa.array(k / 4)], ["left"]))

pq.write_table(more, HERE / "cells.parquet", row_group_size=14)
pq.write_table(table, HERE / "zstd.parquet", compression="zstd", use_dictionary=False, data_page_version="2.0")
pq.write_table(table, HERE / "gzip.parquet", compression="gzip", write_statistics=False, data_page_size=64)

few = pa.table({"times": pa.array(k % 3), "x": pa.array(k / 8)})
delta = {"x": "BYTE_STREAM_SPLIT", "times": "DELTA_BINARY_PACKED"}
pq.write_table(few, HERE / "refused-encoding.parquet", use_dictionary=False, column_encoding=delta)
pq.write_table(few, HERE / "refused-codec.parquet", compression="brotli", use_dictionary=False)
