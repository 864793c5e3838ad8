"""Take the pictures of the studio for the documentation, on a project of generated images.

    python -m tools.studio_pictures /tmp/pictures

The folder keeps the images and the trained project, so that a second call takes a minute. Needs
Chromium. The pictures are written to docs/pictures/studio: each page as on a desk and on a phone,
and as on a desk in dark colours.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tests.studio.browser import Browser

PICTURES = Path("docs/pictures/studio")
SHAPES = {"circle": 0, "square": 4, "triangle": 3, "star": 10}
CAMERAS = ("yard", "hall", "lab")
COUNT, WRONG, REQUESTS, FEEDBACK = 480, 11, 200, 120
DESK, PHONE, HEIGHT, GAP = (1280, 800), (390, 844), 488, 12
QUALITY = 82
SETTINGS = ["plan.strategy=linear_probe", "plan.race=never", "quality=fast"]
PAGES = {
    "grid": ("data", "document.querySelectorAll('.tile img.here').length > 5", ""),
    "label": ("label", "document.querySelector('.heat')?.naturalWidth > 0", ""),
    "models": ("models", "document.querySelector('.matrix td a')", "Answer only if certain"),
    "production": (
        "production",
        "document.querySelectorAll('.foreign img').length > 5",
        "Accuracy in production",
    ),
}
"""The address of each page, what it shows when it is complete, and the heading to scroll to."""


def main() -> None:
    """Make the project if it is missing, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    table, project, journal = folder / "images/labels.csv", folder / "shapes", folder / "journal"
    if not table.exists():
        write_images(table)
    if not (project / "artifacts/model").is_dir():
        sets = [part for setting in SETTINGS for part in ("--set", setting)]
        run("train", str(table), "--out", str(project), *sets)
    model = ["--model", str(project / "artifacts/model"), "--port", "0"]
    variables = {"ROOTSTOCK_JOURNAL": str(journal), "ROOTSTOCK_JOURNAL_IMAGES": "true"}
    with serving("serve", *model, **variables) as service:
        if not (journal / "images").is_dir():
            send_requests(service)
        options = ["--data", str(table), "--port", "0", "--service", service]
        with serving("studio", str(project), *options, "--journal", str(journal)) as studio:
            for name in PAGES:
                take(studio, name, folder)


def write_images(table: Path) -> None:
    """Write pictures of shapes and a table with a few wrong labels, a copy and a broken file."""
    table.parent.mkdir(parents=True)
    names, rows = list(SHAPES), [("path", "label", "camera")]
    for number in range(COUNT):
        shape, camera = names[number % 4], CAMERAS[number % 3]
        path = table.parent / f"{camera}-{number}.jpg"
        draw_shape(shape, number).save(path, quality=90)
        label = names[(number + 1) % 4] if number % (COUNT // WRONG) == 5 else shape
        rows.append((path.name, label, camera))
    (table.parent / "lab-copy.jpg").write_bytes((table.parent / "lab-2.jpg").read_bytes())
    (table.parent / "hall-cut.jpg").write_bytes((table.parent / "hall-1.jpg").read_bytes()[:2000])
    rows += [("lab-copy.jpg", names[2], "lab"), ("hall-cut.jpg", names[1], "hall")]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def draw_shape(shape: str, seed: int) -> Image.Image:
    """Return a picture of a shape in random colours, at a random place, on a gradient."""
    random = np.random.default_rng(seed)
    width, height = (int(side) for side in random.integers(180, 320, 2))
    ends = random.integers(30, 256, (2, 3))
    share = np.linspace(0, 1, height)[:, None, None] * np.ones((1, width, 1))
    pixels = ends[0] * (1 - share) + ends[1] * share + random.normal(0, 8, (height, width, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    radius = random.uniform(0.16, 0.32) * min(width, height)
    x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
    fill, line = (tuple(map(int, random.integers(0, 256, 3))) for _ in range(2))
    if not SHAPES[shape]:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill, line, 4)
    else:
        corners, turn = SHAPES[shape], random.uniform(0, 6.3)
        reach = [radius * (0.45 if shape == "star" and n % 2 else 1.0) for n in range(corners)]
        angles = [turn + 2 * np.pi * n / corners for n in range(corners)]
        points = [
            (x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(reach, angles, strict=True)
        ]
        pen.polygon(points, fill, line, 4)
    return picture.filter(ImageFilter.GaussianBlur(0.6))


def draw_stranger(seed: int) -> Image.Image:
    """Return a picture that is unlike the others: stripes, or noise in blocks."""
    random = np.random.default_rng(seed)
    if seed % 2:
        rows, columns = np.mgrid[0:240, 0:240]
        pixels = 127 + 127 * np.sin((rows * random.uniform(-1, 1) + columns) / 5)
    else:
        pixels = np.kron(random.integers(0, 2, (15, 15)) * 255, np.ones((16, 16)))
    return Image.fromarray(pixels.astype(np.uint8))


def send_requests(service: str) -> None:
    """Send pictures to the service, and the true labels of most of them."""
    random, names = np.random.default_rng(0), list(SHAPES)
    with httpx.Client(base_url=service, timeout=60) as client:
        for number in range(REQUESTS):
            is_strange = number % 29 == 7
            shape = names[int(random.integers(4))]
            seed = COUNT + number
            picture = draw_stranger(seed) if is_strange else draw_shape(shape, seed)
            content = to_jpeg(picture)
            files = {"files": (f"{number}.jpg", content)}
            answer = client.post("/v1/predict", files=files).raise_for_status()
            if number < FEEDBACK and not is_strange:
                judged = {"request_id": answer.headers["X-Request-ID"], "label": shape}
                while client.post("/v1/feedback", json=judged).status_code == 404:
                    time.sleep(0.2)  # the answer is not in the journal yet
            time.sleep(float(random.exponential(0.05)))


def to_jpeg(picture: Image.Image) -> bytes:
    """Return the picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def take(studio: str, name: str, folder: Path) -> None:
    """Write the picture of a page in light colours, with a phone at its right, and in dark ones."""
    shots = [
        photograph(studio, name, folder / f"{name}-{number}.png", size, dark=dark)
        for number, (size, dark) in enumerate([(DESK, False), (PHONE, False), (DESK, True)])
    ]
    desk, phone, dark = (fit(Image.open(shot).convert("RGB")) for shot in shots)
    both = Image.new("RGB", (desk.width + GAP + phone.width, HEIGHT), (200, 198, 192))
    both.paste(desk, (0, 0))
    both.paste(phone, (desk.width + GAP, 0))
    both.save(PICTURES / f"{name}.jpg", quality=QUALITY, optimize=True)
    dark.save(PICTURES / f"{name}-dark.jpg", quality=QUALITY, optimize=True)


def photograph(studio: str, name: str, path: Path, size: tuple[int, int], *, dark: bool) -> Path:
    """Write one screenshot of a page; return its path."""
    place, complete, heading = PAGES[name]
    with Browser(width=size[0], height=size[1], dark=dark) as page:
        page.open(f"{studio}/#/{place}")
        page.wait(complete)
        if name == "grid" and size == DESK:
            page.press("m")
            page.wait("document.querySelectorAll('.map .legend span').length > 1")
        if heading:
            if name == "production" and size == PHONE:
                heading = "Most unlike"
            page.wait(
                "(() => { const one = [...document.querySelectorAll('h1, h2')].find((one) => "
                f"one.textContent.includes('{heading}')); const box = one.closest('.scroll');"
                "box.scrollTop += one.getBoundingClientRect().top - 120; return true; })()"
            )
        time.sleep(1.5)  # pictures that are still loading
        page.photograph(path)
    return path


def fit(picture: Image.Image) -> Image.Image:
    """Return the picture at the height of the documentation's pictures."""
    width = round(picture.width * HEIGHT / picture.height)
    return picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)


def run(*arguments: str) -> None:
    """Run a command of rootstock."""
    subprocess.run([sys.executable, "-m", "rootstock", *arguments], check=True)


@contextmanager
def serving(*arguments: str, **variables: str) -> Iterator[str]:
    """Yield the address of a command that serves, without the slash at its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rootstock", *arguments],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = None
        while not found:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"rootstock {arguments[0]} has ended")
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
