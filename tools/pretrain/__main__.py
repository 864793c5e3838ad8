"""`python -m tools.pretrain`: train a small backbone on a large corpus."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rootstock.errors import RootstockError
from tools.pretrain.pretrain import pretrain


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, pretrain, and print the path of the weights; exit 1 on a known error."""
    parser = argparse.ArgumentParser(prog="python -m tools.pretrain", description=__doc__)
    parser.add_argument("data", type=Path, help="class folders; with a teacher, any folder")
    parser.add_argument("out", type=Path, help="folder for the weights and their card")
    parser.add_argument("--architecture", help="a timm name (default mobilenetv3_small_100)")
    parser.add_argument("--teacher", type=Path, help="a .safetensors file to distil from")
    parser.add_argument("--input-size", type=int, help="side in pixels of the last epochs")
    parser.add_argument("--low-size", type=int, help="side in pixels of the first epochs")
    parser.add_argument("--epochs", type=int, help="total number of epochs")
    parser.add_argument("--low-epochs", type=int, help="epochs at the low size")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float, help="peak rate of AdamW")
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--crop-pct", type=float, help="centre crop of the card, up to 1")
    parser.add_argument("--smallest-crop", type=float, help="smallest training crop, up to 1")
    parser.add_argument("--stored-size", type=int, help="side in pixels of the decoded corpus")
    parser.add_argument("--teacher-size", type=int, help="side in pixels the teacher is shown")
    parser.add_argument("--views", type=int, help="crops of each image shown to the teacher")
    parser.add_argument("--label-weight", type=float, help="weight of the labels (0)")
    parser.add_argument("--licence", help="terms of the corpus, for the card")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--work", type=Path, help="folder for caches and checkpoints")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = {
        name: value
        for name, value in vars(options).items()
        if name not in ("data", "out") and value is not None
    }
    try:
        print(pretrain(options.data, options.out, **settings))
    except RootstockError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
