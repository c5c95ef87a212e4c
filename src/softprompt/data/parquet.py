"""Reader of Parquet files, where pyarrow is installed (the extra `data`)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from softprompt.data.lines import opened
from softprompt.errors import ConfigError, DataError

ROWS_AT_ONCE = 1024


def read_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (row from 1, values by column), in file order; a batch of rows is in memory at a time.

    Raises ConfigError without pyarrow or without the file, DataError for a file that is not Parquet.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow, which is not installed. "
            "Run: pip install 'softprompt[data]', or save the data as JSONL."
        ) from None
    with opened(path) as file:
        row = 0
        try:
            for batch in ParquetFile(file).iter_batches(batch_size=ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    row += 1
                    yield row, values
        except (ArrowException, OSError) as error:
            raise DataError(f"{path}:{row + 1}: not a whole Parquet file ({error}). Fetch or write it again.") from None
