"""Command line of the gazette generator."""

import argparse
from pathlib import Path

from tools.gazette.generate import write


def main() -> None:
    """Write the three files and print their digests."""
    parser = argparse.ArgumentParser(description="Write gazette's train, dev and test files.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    for split, digest in write(args.out, args.seed).items():
        print(f"{digest}  {split}.jsonl")


if __name__ == "__main__":
    main()
