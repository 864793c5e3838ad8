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
EACH = 60
"""Few, so that the demo takes minutes on two cores."""


def write_digits(root: Path) -> int:
    """Write 60 of scikit-learn's handwritten digits of each kind, ``root/<digit>/<number>.png``.

    The 8 x 8 originals (UCI ML hand-written digits, CC BY 4.0) are enlarged to 32 x 32 pixels
    so that a person can read them. Returns how many files there are.
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
    """Put the demo images into data/raw, unless a user's own images are there."""
    if MARKER.exists():
        return
    if DATA.exists() and any(DATA.iterdir()):
        sys.exit(
            f"error: {DATA} holds images of your own, and the demo would mix its digits in.\n"
            "  -> your own data: run `dvc repro`; the demo: run it in a fresh clone"
        )
    count = write_digits(DATA)
    MARKER.write_text("written by `make demo`; remove data/raw to use your own images\n")
    print(f"wrote {count} handwritten digits below {DATA}/<digit>/")


def show_results() -> None:
    """Print what to do with the demo's model."""
    image = next(iter(sorted(DATA.glob("7/*.png"))), DATA)
    print(
        "try it\n"
        "  make serve                                    serve the champion on port 8000\n"
        f"  curl -F files=@{image} http://127.0.0.1:8000/v1/predict\n"
        "  .venv/bin/rootstock studio    see images and models, correct labels, at\n"
        "    http://127.0.0.1:8100\n"
        "  .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db    see every run, at\n"
        "    http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning\n"
        "  your own images: remove data/raw, put yours there, then `dvc repro`"
    )


def main() -> None:
    """Write the images, run the pipeline, show what came out."""
    with exit_on_failure():
        prepare_data()
        begun = time.time()
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False)
        if done.returncode:
            # DVC and the stage have said why
            sys.exit(done.returncode)
        paths = Paths(Path.cwd())
        if paths.registration.stat().st_mtime < begun:  # nothing was to do
            print(f"\n{render_result(paths)}\n")
        show_results()


if __name__ == "__main__":
    main()
