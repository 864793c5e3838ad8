"""The demo: real handwritten digits as PNG files, `dvc repro`, and what to do next."""

import json
import subprocess
import sys
from pathlib import Path

DATA = Path("data/raw")
MARKER = DATA / ".rootstock-demo"
SIDE = 32


def write_digits(root: Path) -> int:
    """Write scikit-learn's 1,797 handwritten digits as ``root/<digit>/<number>.png``.

    The 8 x 8 originals (UCI ML hand-written digits, CC BY 4.0) are enlarged to 32 x 32 pixels
    so that a person can read them. Returns how many files there are.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = (255 - pixels * (255 / 16)).astype("uint8")
        image = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04d}.png")
    return len(digits.target)


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
    """Print the plan, the test metrics and the next commands."""
    print("\n" + Path("reports/plan.md").read_text(encoding="utf-8"))
    metrics = json.loads(Path("reports/metrics.json").read_text(encoding="utf-8"))
    registration = json.loads(Path("artifacts/registration.json").read_text(encoding="utf-8"))
    print("test metrics")
    for name, value in metrics.items():
        print(f"  {name:20} {value}")
    print(f"\n{registration['reason']}")
    image = next(iter(sorted(DATA.glob("7/*.png"))), DATA)
    print(
        "\nnext\n"
        "  make serve                                    serve the champion on port 8000\n"
        f"  curl -F files=@{image} http://127.0.0.1:8000/v1/predict\n"
        "  .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db    see every run\n"
        "  xdg-open reports/data.md                      what the images are like\n"
        "  xdg-open reports/evaluation.md                what the model gets wrong\n"
        "  your own images: point data.root in params.yaml at them, then `dvc repro`"
    )


def main() -> None:
    """Write the images, run the pipeline, show what came out."""
    prepare_data()
    subprocess.run([sys.executable, "-m", "dvc", "repro"], check=True)
    show_results()


if __name__ == "__main__":
    main()
