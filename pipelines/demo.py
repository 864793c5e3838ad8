"""The demo: real handwritten digits as PNG files, `dvc repro`, and what to do next."""

import subprocess
import sys
import time
from pathlib import Path

from rootstock.config.paths import Paths
from rootstock.system.failure import exit_on_failure
from rootstock.workflow.result import render_result

DATA = Path("data/raw")
MARKER = DATA / ".rootstock-demo"
SIDE = 32
EACH = 47
"""Images per digit: few, so that the demo takes minutes on two cores.

More than 300 are left for training and 60 for validation: with fewer, a race tries every learning
rate in full, on several splits, and takes longer."""


def write_digits(root: Path) -> int:
    """Write some of scikit-learn's handwritten digits per class to ``root/<digit>/<number>.png``.

    The 8 x 8 originals (UCI ML hand-written digits, CC BY 4.0) are enlarged to 32 x 32 pixels
    so that a person can read them. Return the number of files.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    written = [0] * 10
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if written[label] == EACH:
            continue
        written[label] += 1
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = (255 - pixels * (255 / 16)).astype("uint8")
        image = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04d}.png")
    return sum(written)


def prepare_data() -> None:
    """Write the demo images to data/raw, unless the user's own images are there."""
    if MARKER.exists():
        return
    if DATA.exists() and any(DATA.iterdir()):
        sys.exit(
            f"error: {DATA} contains your own images, and the demo would add its digits to them.\n"
            "  -> run `dvc repro` for your own data, or run the demo in a fresh clone"
        )
    count = write_digits(DATA)
    MARKER.write_text("written by `make demo`; remove data/raw to use your own images\n")
    print(f"wrote {count} handwritten digits below {DATA}/<digit>/")


def show_results() -> None:
    """Print the addresses of the service and the studio, and three things to try."""
    image = next(iter(sorted(DATA.glob("7/*.png"))), DATA)
    print(
        "service   make serve                      http://127.0.0.1:8000\n"
        "studio    .venv/bin/rootstock studio      http://127.0.0.1:8100\n"
        "try       1. drop an image on the page of the service, or:\n"
        f"             curl -F files=@{image} http://127.0.0.1:8000/v1/predict\n"
        "          2. correct ten labels on the page Label of the studio, and see what they gain\n"
        "          3. use your own images: replace those in data/raw, then run `dvc repro`"
    )


def main() -> None:
    """Write the images, run the pipeline and print the result."""
    with exit_on_failure():
        prepare_data()
        begun = time.time()
        # Quiet: DVC prints no line per stage; the stages print their progress.
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], check=False)
        if done.returncode:
            sys.exit(f"error: the pipeline failed ({done.returncode})\n  -> `dvc repro` shows more")
        paths = Paths(Path.cwd())
        if paths.registration.stat().st_mtime < begun:  # nothing had to run
            print(f"\n{render_result(paths)}\n")
        show_results()


if __name__ == "__main__":
    main()
