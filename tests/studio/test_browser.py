"""A real browser drives every page. `make test-browser` fails if there is none."""

import os
import time

import pytest

from rootstock.data.label_corrections import read_corrections
from rootstock.service.http.keys import make_key
from tests.studio.browser import Browser, find_browser
from tests.studio.conftest import IMAGES_PER_CLASS, SCRIPT, running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not find_browser() and not os.environ.get("BROWSER_REQUIRED"),
        reason="Chromium is not installed (Debian: apt-get install chromium)",
    ),
]
TOTAL = 2 * IMAGES_PER_CLASS + 2


@pytest.fixture(scope="module")
def address(finished):
    with running(finished) as address:
        yield address


@pytest.fixture
def page(address):
    with Browser() as browser:
        browser.open(address)
        yield browser
        assert not browser.errors
        # A label or a file name that became an element would be one of these.
        assert browser.run("document.querySelectorAll('img[src=x], [onerror]').length") == 0


def wait_for_total(page, number):
    noun = "image" if number == 1 else "images"
    page.wait(f"document.querySelector('.total')?.textContent === '{number} {noun}'")


def press_button(page, selector, text, within=""):
    """Press the first button whose text, or the text of its box, contains this."""
    box = f".closest('{within}')" if within else ""
    page.wait(
        f"(() => {{ const one = [...document.querySelectorAll({selector!r})].find((one) => "
        f"one{box}.textContent.includes({text!r})); one?.click(); return !!one; }})()"
    )


def test_grid_shows_images_that_filters_let_through(page):
    wait_for_total(page, TOTAL)
    page.wait("document.querySelectorAll('.tile img.here').length > 8")
    page.click(".side input[type=checkbox]")
    page.wait("location.hash.includes('flag=')")
    page.run("history.back()")
    wait_for_total(page, TOTAL)


def test_a_label_with_markup_is_text(page):
    page.open(page.run("location.origin") + "/#/data?reason=none&text=odd-0")
    wait_for_total(page, 1)
    assert page.wait("document.querySelector('.tile .name').textContent.trim()") == SCRIPT


def test_keys_move_through_the_images_and_open_one(page):
    wait_for_total(page, TOTAL)
    page.press("ArrowRight", "ArrowRight", "ArrowDown", "Enter")
    page.wait("document.querySelector('.detail img')?.naturalWidth > 0")
    first = page.run("document.querySelector('.detail .facts dd').textContent")
    page.press("ArrowRight")
    page.wait(f"document.querySelector('.detail .facts dd').textContent !== {first!r}")
    page.press("Escape")
    page.wait("!document.querySelector('.detail')")
    page.press("Enter")
    page.wait("document.querySelector('.detail img')")
    page.run("location.hash = '#/data?text=plain'")  # as the browser's button Back does
    page.wait("!document.querySelector('.detail')")


def test_a_finding_shows_its_images(page):
    wait_for_total(page, TOTAL)
    press_button(page, ".tools button", "finding")
    press_button(page, ".finding button", "copies", within=".finding")
    wait_for_total(page, 2)


def test_a_line_on_the_map_filters_the_grid(page):
    wait_for_total(page, TOTAL)
    page.press("m")
    page.wait("document.querySelectorAll('.map .legend span').length")
    left, top, wide, high = page.run(
        "(() => { const b = document.querySelector('.map').getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    inner = [(0.02, 0.97), (0.02, 0.01), (0.5, 0.01), (0.98, 0.01), (0.98, 0.97)]
    page.drag([(left + x * wide, top + y * high) for x, y in inner])
    page.wait("location.hash.includes('lasso=')")
    wait_for_total(page, TOTAL - 1)
    page.press("m")


@pytest.fixture
def desk(project):
    """The Label page of a separate project, because the tests write labels."""
    with running(project) as address, Browser() as page:
        page.open(address)
        page.wait("document.querySelectorAll('#nav a').length")
        page.run("localStorage.setItem('studio.who', 'Ada')")
        page.open(f"{address}#/label")
        yield page, project
        assert not page.errors


def corrections(project):
    return read_corrections(project / "images/corrections.csv")


def wait_for_rows(page, project, count):
    until = time.monotonic() + 10
    while len(corrections(project)) < count:
        assert time.monotonic() < until, page.run("document.body.innerText")
        time.sleep(0.05)
    return corrections(project)


def test_one_key_labels_image_and_shows_next(desk):
    page, project = desk
    page.wait("document.querySelectorAll('.option .count').length === 2")
    first = page.run("document.querySelector('.label .path').textContent")
    said = page.run("document.querySelector('.option .what').firstChild.textContent")
    page.press("1")
    page.wait(f"document.querySelector('.label .path')?.textContent !== {first!r}")
    (row,) = wait_for_rows(page, project, 1)
    assert (row.who, row.new) == ("Ada", said)
    page.press("u")
    page.wait(f"document.querySelector('.label .path')?.textContent === {first!r}")
    assert [row.why for row in wait_for_rows(page, project, 2)] == ["", "undone"]


def test_digits_wait_for_the_model_that_orders_the_names(desk):
    page, project = desk
    page.wait("document.querySelectorAll('.option .count').length === 2")
    page.run(
        "(() => { const ask = window.fetch; window.fetch = (path, ...more) => "
        "String(path).endsWith('/opinion') ? new Promise((go) => { window.answer = () => "
        "go(ask(path, ...more)); }) : ask(path, ...more); })()"
    )
    page.run("location.hash = '#/label?term=plain'")
    page.wait("document.body.innerText.includes('those of your filters')")
    page.wait("document.querySelectorAll('.option').length === 2")
    first = page.run("document.querySelector('.label .path').textContent")
    assert page.run("document.querySelectorAll('.option kbd').length") == 0
    page.press("1")
    assert page.run("document.querySelector('.label .path').textContent") == first
    assert corrections(project) == ()


def test_evidence_and_similar_images_are_shown(desk):
    page, _ = desk
    page.wait("document.querySelector('.heat')?.naturalWidth > 0")
    page.wait("document.querySelectorAll('.neighbours img.here').length > 1")


def test_unsaved_label_brings_its_image_back(desk):
    page, project = desk
    page.wait("document.querySelectorAll('.option .count').length === 2")
    first = page.run("document.querySelector('.label .path').textContent")
    file = project / "images/corrections.csv"
    file.mkdir()
    page.press("1")
    page.wait("document.querySelectorAll('.toast.bad').length")
    page.wait(f"document.querySelector('.label .path')?.textContent === {first!r}")
    file.rmdir()
    press_button(page, ".toast.bad button", "Try again")
    wait_for_rows(page, project, 1)
    page.errors.clear()  # the browser logs the rejected request


def test_a_confusion_leads_to_its_images(page, address):
    page.open(f"{address}#/models")
    page.wait("document.querySelectorAll('.matrix td a').length")
    number = page.run("document.querySelector('.matrix td a').textContent")
    page.click(".matrix td a")
    wait_for_total(page, int(number))
    page.errors.clear()  # there is no registry, as the page states


def test_the_threshold_trades_precision_for_review(page, address):
    page.open(f"{address}#/models")
    page.wait("document.querySelectorAll('input[type=range]').length")
    figure = (
        "[...document.querySelectorAll('.figure')].find((one) => /review/.test(one.textContent))"
    )
    assert page.run(f"{figure}.querySelector('b').textContent") == "0.0 %"
    page.run(
        "(() => { const slider = document.querySelector('input[type=range]');"
        "slider.value = 1; slider.dispatchEvent(new Event('input')); })()"
    )
    assert float(page.run(f"parseFloat({figure}.querySelector('b').textContent)")) > 0
    page.errors.clear()


def test_the_page_of_models_shows_plan_and_stages(page, address):
    page.open(f"{address}#/models")
    page.wait("document.querySelectorAll('.stages .done').length >= 6")
    page.wait("document.body.innerText.includes('linear probe')")
    page.wait("document.body.innerText.includes('there is no registry')")
    page.errors.clear()


def test_without_service_page_says_how_to_name_one(page, address):
    page.open(f"{address}#/production")
    page.wait("document.body.innerText.includes('rootstock studio --service')")


def test_keys_lead_from_page_to_page(page):
    page.wait("document.querySelectorAll('#nav a').length === 4")
    for key, name in (("p", "production"), ("l", "label"), ("o", "models"), ("d", "data")):
        page.press(key)
        page.wait(f"location.hash.includes({name!r})")
        page.wait(f"document.querySelector('#nav [aria-current]').hash.includes({name!r})")
    page.press("?")
    page.wait("document.querySelectorAll('dialog[open] kbd').length > 4")
    page.errors.clear()


@pytest.mark.parametrize("name", ["data", "label", "label?source=pool", "models", "production"])
def test_no_page_is_wider_than_a_phone(page, address, name):
    page.resize(390, 844)
    page.open(f"{address}#/{name}")
    shown = name.partition("?")[0]
    page.wait(f"document.querySelector('#nav [aria-current]')?.hash.includes({shown!r})")
    page.wait("document.querySelector('#page').children.length")
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.errors.clear()


def test_with_keys_the_page_asks_for_one_first(finished, tmp_path):
    file = tmp_path / "keys"
    key = make_key("Grace", "predict", file)
    with running(finished, keys=file) as address, Browser() as page:
        page.open(address)
        page.wait("document.querySelectorAll('dialog[open] input[type=password]').length")
        assert page.run("document.querySelectorAll('.tile').length") == 0
        page.run("document.querySelector('dialog input').focus()")
        page.type("rsk_wrong")
        page.press("Enter")
        page.wait("document.body.innerText.includes('Unknown key.')")
        page.run("document.querySelector('dialog input').value = ''")
        page.run("document.querySelector('dialog input').focus()")
        page.type(key)
        page.press("Enter")
        wait_for_total(page, TOTAL)
        page.wait("document.querySelectorAll('.tile img.here').length > 4")


def test_a_studio_that_was_ended_is_explained(finished):
    with Browser() as page:
        with running(finished) as address:
            page.open(address)
            wait_for_total(page, TOTAL)
        page.run("location.hash = '#/data?term=plain'")
        page.wait("document.querySelectorAll('.toast.bad').length")
        text = page.run("document.querySelector('.toast.bad').textContent")
        assert "The studio does not answer" in text
        assert "rootstock studio" in text
