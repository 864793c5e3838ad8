"""A real browser labels images from outside, fits a new head, promotes it and takes it back."""

import os

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.label_corrections import read_corrections
from rootstock.integrations.connect import connect_registry, connect_runs
from rootstock.workflow.register import register_model
from tests.bundles import jpeg
from tests.data.folders import photo
from tests.service.conftest import make_client
from tests.service.requests import post_files, wait_for
from tests.service.test_serve import running as running_service
from tests.studio.browser import Browser, find_browser
from tests.studio.conftest import SCRIPT, running
from tests.studio.test_browser import press_button

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not find_browser() and not os.environ.get("BROWSER_REQUIRED"),
        reason="Chromium is not installed (Debian: apt-get install chromium)",
    ),
]


def corrections(project):
    return read_corrections(project / "images/corrections.csv")


def open_page(page, address, place):
    page.open(address)
    page.wait("document.querySelector('#nav a')")
    page.run("localStorage.setItem('studio.who', 'Ada')")
    page.open(f"{address}#/{place}")


def check_no_markup(page):
    assert page.run("document.querySelectorAll('img[src=x], [onerror]').length") == 0
    assert not page.errors


def test_a_folder_is_chosen_ranked_and_labelled(project, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(4):
        name = f"{number}-{SCRIPT.replace('/', '')}.png"
        (pool / name).write_bytes(photo(5000 + number))
    with running(project) as address, Browser() as page:
        open_page(page, address, "label?source=pool")
        page.wait("document.querySelector('.pool input')")
        page.run("document.querySelector('.pool input').focus()")
        page.type(str(pool))
        page.press("Enter")
        page.wait("document.querySelector('.total')?.textContent === '4 images to look at'")
        page.wait("document.querySelectorAll('.option .count').length === 2")
        assert page.run("document.querySelector('.label h1').textContent") == "no label"
        page.press("1")
        page.wait("document.querySelector('.total')?.textContent === '3 images to look at'")
        (row,) = wait_for(lambda: corrections(project))
        assert row.old == ""
        assert row.why.startswith(f"from {pool}")
        assert len(list((project / "images/added").iterdir())) == 1
        page.press("s", "s", "s")
        press_button(page, ".stage button", "Rank the rest")
        page.wait("document.querySelector('.total')?.textContent === '3 images to look at'")
        check_no_markup(page)


def test_feedback_of_the_service_is_accepted_by_enter(project, tmp_path):
    journal, model = tmp_path / "journal", str(project / "artifacts/model")
    with make_client(model=model, journal=journal, journal_images=True) as service:
        answer = post_files(service, ("a.jpg", jpeg(1)))
        judged = {"request_id": answer.headers["X-Request-ID"], "label": "third"}
        wait_for(lambda: service.post("/v1/feedback", json=judged).status_code < 300)
    with running(project, journal=journal) as address, Browser() as page:
        open_page(page, address, "label?source=requests")
        page.wait("document.body.innerText.includes('Feedback: third')")
        page.wait("document.querySelector('.stage img').naturalWidth > 0")
        page.press("Enter")
        (row,) = wait_for(lambda: corrections(project))
        assert row.new == "third"
        page.open(f"{address}#/production")
        page.wait("document.querySelectorAll('.foreign img').length")
        press_button(page, "a", "Label requests")
        page.wait("document.body.innerText.includes('No requests need a label')")
        check_no_markup(page)


def test_new_head_is_promoted_answers_and_is_taken_back(project):
    config, paths = load_config(project / "params.yaml"), Paths(project)
    runs, registry = connect_runs(config, paths), connect_registry(config, paths)
    register_model(config, paths, runs=runs, registry=registry)
    champion = f"models:/{config.registry.name}@champion"
    with (
        make_client(root=project, model=champion, poll_seconds=0.5) as service,
        running(project) as address,
        Browser() as page,
    ):

        def wait_for_version(number):
            wait_for(
                lambda: (
                    post_files(service, ("a.jpg", jpeg(1))).json()["model"]["version"] == number
                ),
                30,
            )

        wait_for_version("1")
        open_page(page, address, "label?term=plain&split=train")
        page.wait("document.querySelectorAll('.option .count').length === 2")
        page.press("2")
        wait_for(lambda: corrections(project))
        press_button(page, ".tools button", "New head")
        press_button(page, "dialog button", "Fit to 1 corrected label")
        page.wait("document.querySelector('dialog').innerText.includes('Gain, 95 % interval')", 60)
        assert page.run("document.querySelectorAll('dialog td.number').length") == 5
        press_button(page, "dialog button", "Register and compare")
        page.wait("document.querySelector('dialog .box.warn')", 60)
        page.run("document.querySelector('dialog').close()")
        page.open(f"{address}#/models")
        page.wait("document.body.innerText.includes('History: ')")
        page.wait("document.body.innerText.includes('A new head learns these labels')")
        assert "1 of 33" in page.run("document.querySelector('.figure b').textContent")
        if registry.versions(config.registry.name) and _champion(registry, config) != "2":
            press_button(page, ".card button", "Promote version 2")
            page.wait("document.querySelector('dialog input')")
            page.run("document.querySelector('dialog input').focus()")
            page.type(SCRIPT)
            page.press("Enter")
        wait_for_version("2")
        page.wait("document.body.innerText.includes('Champion, version 2')")
        press_button(page, ".card button", "Roll back to version 1")
        page.wait("document.querySelector('dialog input')")
        press_button(page, "dialog button", "Yes")
        page.wait("document.body.innerText.includes('Champion, version 1')")
        wait_for_version("1")
        page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.wait("document.body.innerText.includes('Version 1 rolled back')")
        check_no_markup(page)


def test_promotion_says_whether_the_service_has_the_version(project):
    config, paths = load_config(project / "params.yaml"), Paths(project)
    runs, registry = connect_runs(config, paths), connect_registry(config, paths)
    register_model(config, paths, runs=runs, registry=registry)
    first = registry.find("rootstock", alias="champion")
    bundle = registry.download(first, project / "copy")
    registry.register("rootstock", bundle, run_id=first.run_id, tags={}, description="again")
    arguments = ("--root", str(project), "--model", "models:/rootstock@champion")
    variables = {"ROOTSTOCK_POLL_SECONDS": "1"}

    def decide(page, button):
        press_button(page, ".card button", button)
        page.wait("document.querySelector('dialog input')")
        press_button(page, "dialog button", "Yes")

    def wait_for_toast(page, text, *, bad):
        (toast,) = wait_for(
            lambda: page.run(
                "[...document.querySelectorAll('.toast')]"
                ".map((one) => [one.innerText, one.className])"
                f".filter(([said]) => said.includes({text!r}))"
            ),
            30,
        )
        assert ("bad" in toast[1]) == bad
        return toast[0]

    with (
        running_service(*arguments, **variables) as (service, process),
        running(project, service=service) as address,
        Browser() as page,
    ):
        has = f"and the service at {service} answers with it"
        open_page(page, address, "models")
        page.wait("document.body.innerText.includes('History: ')")
        page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        decide(page, "Promote")
        wait_for_toast(page, f"Version 2 is the champion, {has}", bad=False)
        process.kill()
        decide(page, "Roll back to version 1")
        said = wait_for_toast(page, "Version 1 is the champion in the registry, but", bad=True)
        assert f"the service at {service} does not answer" in said
        assert "rootstock serve" in said
        port = service.rpartition(":")[2]
        with running_service(*arguments, **variables, ROOTSTOCK_PORT=port):
            wait_for_toast(page, f"Version 1 is the champion, {has}", bad=False)
        assert page.run("document.querySelectorAll('.toast.bad').length") == 0
        check_no_markup(page)


def _champion(registry, config):
    name = config.registry.name
    return next(one.version for one in registry.versions(name) if "champion" in one.aliases)
