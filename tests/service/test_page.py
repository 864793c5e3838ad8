"""The service's page in a real browser, for each kind of answer."""

import base64
import json
import os

import pytest

from rootstock.model.predictor import Predictor
from tests.bundles import jpeg
from tests.explain.test_tasks import CALIBRATIONS, make_predictor
from tests.service.test_serve import running
from tests.studio.browser import Browser, find_browser

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not find_browser() and not os.environ.get("BROWSER_REQUIRED"),
        reason="Chromium is not installed (Debian: apt-get install chromium)",
    ),
]
DROP = """
(async () => {
  const bytes = Uint8Array.from(atob(%s), (one) => one.charCodeAt(0));
  classifyAll([new File([bytes], "<b>odd</b>.jpg", { type: "image/jpeg" })]);
})()
"""


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_an_image_is_answered_with_its_evidence(name, tmp_path):
    predictor = make_predictor(name, tmp_path)
    (answer,) = Predictor(predictor.bundle).predict([jpeg(0)])
    with running("--model", str(predictor.bundle.directory)) as (address, _), Browser() as page:
        page.open(address)
        page.wait("document.querySelector('#model').textContent.includes('version')")
        page.run(DROP % json.dumps(base64.b64encode(jpeg(0)).decode()))
        page.wait("!!document.querySelector('.answer .why button')")
        said = page.run("document.querySelector('.answer').innerText")
        assert "<b>odd</b>.jpg" in said
        first = {
            "multi_label": lambda: "%",
            "regression": lambda: f"{answer.values[0].value:.4g}",
        }.get(name, lambda: answer.top[0].label)()
        assert first in said
        if name == "localisation":
            page.wait("document.querySelector('.answer > img').alt.startsWith('box at')")
        page.run("document.querySelector('.answer .why button').click()")
        page.wait("document.querySelectorAll('.answer .layers img').length === 2")
        page.run(
            "(() => { const one = document.querySelector('.answer .why input[type=range]');"
            "one.value = 25; one.dispatchEvent(new Event('input')); })()"
        )
        assert page.run("document.querySelector('.answer .layers').lastChild.style.opacity") == (
            "0.25"
        )
        assert not page.errors
