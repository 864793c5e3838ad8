import contextlib
import json
import os
import re
import subprocess
import sys
import time

import pytest

from rootstock.cli.main import main
from rootstock.config.load import load_config
from rootstock.plan.ledger import append_row
from rootstock.system.exclusive import claim_folder
from tests.bundles import CLASSES, jpeg, tiny_backbone, tiny_bundle
from tests.data.folders import photo, write_classes
from tests.plan.test_ledger import a_row


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Run commands in a temporary folder, where they look for params.yaml and mlflow.db."""
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def fails(*arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return str(caught.value.code)


def test_check_lists_quarantined_files_for_machines(tmp_path, capsys):
    write_classes(tmp_path / "data", {"ants": 9, "bees": 9})
    (tmp_path / "data/ants/broken.jpg").write_bytes(b"nonsense")
    found = json.loads(run(capsys, "check", "data", "--json"))
    assert found["quarantined"] == [{"path": "ants/broken.jpg", "reason": "not-an-image"}]
    assert found["n_usable"] == 18


def test_check_says_the_same_to_people(tmp_path, capsys):
    write_classes(tmp_path / "data", {"ants": 9, "bees": 9})
    assert "18 usable images of 18" in run(capsys, "check", "data")
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_check_shows_leaks_without_json(tmp_path, capsys):
    write_classes(tmp_path / "train", {"ants": 8, "bees": 8})
    write_classes(tmp_path / "test", {"ants": 4, "bees": 4}, seed=1)
    (tmp_path / "test/ants/again.png").write_bytes(photo(0))
    assert "1 group of copies in more than one split" in run(capsys, "check", str(tmp_path))


def test_folder_that_another_run_writes_to_is_rejected(tmp_path):
    write_classes(tmp_path / "data", {"ants": 8, "bees": 8})
    with claim_folder(tmp_path):
        message = fails("plan", "data", "--out", ".")
        assert f"another run is writing to {tmp_path}" in message
        (tmp_path / "params.yaml").write_text("tracking: {enabled: false}\n")
        stage = subprocess.run(
            [sys.executable, "-m", "pipelines.index"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
    assert stage.returncode == 1
    assert "another run is writing to" in stage.stderr


@pytest.mark.parametrize("command", ["plan", "train", "evaluate"])
def test_results_are_not_written_among_the_images(tmp_path, command):
    root = write_classes(tmp_path / "images", {"ants": 8, "bees": 8})
    before = sorted(root.rglob("*"))
    assert "is inside the folder of the images" in fails(
        command, str(root), "--out", f"{root}/run1"
    )
    assert sorted(root.rglob("*")) == before


def test_plan_prints_the_plan(tmp_path, capsys):
    write_classes(tmp_path / "data", {"ants": 12, "bees": 12})
    weights = f"backbone.weights={tiny_backbone().card.weights}"
    assert "# Plan: " in run(capsys, "plan", "data", "--set", weights)
    found = run(capsys, "plan", "data", "--set", weights, "--json")
    assert json.loads(found)["size_class"] == "small"


def test_calibrate_prints_settings_for_params_yaml(tmp_path, capsys):
    append_row(tmp_path / "ours.jsonl", a_row())
    append_row(tmp_path / "theirs.jsonl", a_row(test_accuracy=0.5))
    found = run(capsys, "calibrate", "--ledger", "ours.jsonl", "--ledger", "theirs.jsonl")
    (tmp_path / "params.yaml").write_text(found)
    assert "2 runs, 0 data sets" in found
    assert "in 50% of the runs" in found
    low, high = load_config(tmp_path / "params.yaml").plan.shares["medium"]
    assert low < high


def test_calibrate_without_ledger_says_where_one_comes_from():
    assert "nowhere.jsonl does not exist" in fails("calibrate", "--ledger", "nowhere.jsonl")


def test_class_name_with_line_break_prints_as_one_line(tmp_path, capsys):
    write_classes(tmp_path / "data", {"an\nts": 9, "bees": 9})
    assert r"an\nts" in run(capsys, "check", "data")


def predict(capsys, *arguments):
    """Return the exit code of predict and its output."""
    code = 0
    try:
        main(["predict", *map(str, arguments), "--model", str(tiny_bundle())])
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def test_predict_answers_despite_unusable_files(tmp_path, capsys):
    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    (tmp_path / "bad.jpg").write_bytes(b"nonsense")
    os.mkfifo(tmp_path / "pipe")
    code, text = predict(capsys, "bad.jpg", "none.jpg", "pipe", "good.jpg", "--json")
    found = json.loads(text)["predictions"]
    assert code == 1
    assert [one.get("error", {}).get("reason") for one in found] == [
        "not-an-image",
        "unreadable",
        "unreadable",
        None,
    ]
    assert [one["filename"] for one in found] == ["bad.jpg", "none.jpg", "pipe", "good.jpg"]
    assert found[3]["top"][0]["label"] in CLASSES


def test_predict_answers_the_images_of_a_folder(tmp_path, capsys):
    (tmp_path / "new/deep").mkdir(parents=True)
    (tmp_path / "new/.hidden").mkdir()
    for seed, name in enumerate(["b.jpg", "a.JPEG", "deep/c.jpg", ".hidden/d.jpg", ".e.jpg"]):
        (tmp_path / "new" / name).write_bytes(jpeg(seed))
    (tmp_path / "new/notes.txt").write_text("not an image")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/f.jpg").write_bytes(jpeg(9))
    (tmp_path / "new/linked").symlink_to("../elsewhere")
    (tmp_path / "new/circle").symlink_to(".")
    code, text = predict(capsys, "new")
    assert code == 0
    assert [line.partition(": ")[0] for line in text.splitlines()] == [
        "new/a.JPEG",
        "new/b.jpg",
        "new/deep/c.jpg",
        "new/linked/f.jpg",
    ]


def test_predict_writes_a_table_for_a_list(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jpg").write_bytes(jpeg(1))
    (tmp_path / "set/list.csv").write_text("path,owner\na.jpg,me\nnone.jpg,me\n")
    code, text = predict(capsys, "set/list.csv", "--out", "answers.csv", "--coverage", "0.9")
    assert code == 1
    assert text.startswith("answers.csv: 2 images, ")
    header, first, second = (tmp_path / "answers.csv").read_text().splitlines()
    assert header.startswith('"path","label","probability"')
    assert first.startswith('"a.jpg",')
    assert second.startswith('"none.jpg",,')
    code, text = predict(capsys, "set/list.csv", "--out", "answers.parquet", "--json")
    assert json.loads(text)["failed"] == 1


def test_predict_refuses_tables_that_it_cannot_write(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    asked = ("predict", "a.jpg", "--model", tiny_bundle())
    assert "for example --out" in fails(*asked, "--embeddings")
    assert "must end in .csv or .parquet" in fails(*asked, "--out", "answers.json")


def test_predict_says_that_a_folder_has_no_image(tmp_path):
    (tmp_path / "new").mkdir()
    assert "new contains no images" in fails("predict", "new", "--model", tiny_bundle())


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_predict_refuses_an_impossible_number_of_labels(number, capsys):
    assert fails("predict", "a.jpg", "--top-k", number, "--model", tiny_bundle()) == "2"
    assert f"{number!r} is not a positive whole number" in capsys.readouterr().err


def test_json_is_all_that_standard_output_holds(tmp_path, capfd, monkeypatch):
    from rootstock.model.predictor import Predictor

    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    decide = Predictor.infer

    def chatty(*arguments, **others):
        sys.stdout.write("a library speaks\n")
        os.write(1, b"compiled code speaks\n")
        subprocess.run(["echo", "a process speaks"], check=True)
        return decide(*arguments, **others)

    monkeypatch.setattr(Predictor, "infer", chatty)
    main(["predict", "good.jpg", "--model", str(tiny_bundle()), "--json"])
    out, err = capfd.readouterr()
    assert json.loads(out)["predictions"][0]["filename"] == "good.jpg"
    assert err.count("speaks") == 3
    main(["predict", "good.jpg", "--model", str(tiny_bundle())])
    assert capfd.readouterr().out.count("speaks") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "none"], "error: there is no data at .*none"),
        (["check", ".", "--set", "data.nonsense=1"], "data.nonsense: no such key"),
        (["train", "x", "--out", "o", "--params", "no.yaml"], "no.yaml does not exist"),
        (["predict", "none.jpg", "--model", "none"], "there is no model directory none"),
        (["predict", "none.jpg", "--model", "models:/a/b/c"], "models:/a/b/c"),
    ],
)
def test_known_error_is_one_message_without_traceback(arguments, message, tmp_path):
    assert re.search(message, fails(*arguments))


def test_tidy_removes_features_of_images_that_are_gone(tmp_path, capsys):
    write_classes(tmp_path / "data", {"ants": 12, "bees": 12})
    weights = f"backbone.weights={tiny_backbone().card.weights}"
    run(capsys, "plan", "data", "--out", ".", "--set", weights)
    assert json.loads(run(capsys, "tidy", "--json"))["rows"] == 0
    for number in range(6):
        (tmp_path / f"data/ants/{number}.png").unlink()
    run(capsys, "plan", "data", "--out", ".", "--set", weights)
    assert json.loads(run(capsys, "tidy", "--json"))["rows"] == 0  # only files from the last hour
    _age(tmp_path / ".rootstock/features")
    found = json.loads(run(capsys, "tidy", "--json"))
    assert found["rows"] > 0
    assert "0 feature rows removed" in run(capsys, "tidy")


def _age(folder):
    """Set all file times to two hours ago."""
    then = time.time() - 7200
    for path in folder.rglob("*.safetensors"):
        os.utime(path, (then, then))


def test_tidy_without_a_manifest_removes_nothing():
    assert "run the stage `index`" in fails("tidy")


def test_tidy_names_a_manifest_that_is_not_there(tmp_path):
    assert "theirs.parquet does not exist; nothing was" in fails("tidy", "--keep", "theirs.parquet")


def test_params_lists_keys_with_defaults(capsys):
    found = json.loads(run(capsys, "params", "--json"))
    keys = {one["key"]: one for one in found}
    assert keys["seed"]["default"] == 0
    assert keys["plan.max_params"]["default"] is None
    assert keys["search.engine"]["allowed"] == "ray or sequential"
    text = run(capsys, "params")
    assert "plan.race = auto\n" in text
    assert "Allowed: auto or never." in text
    assert "None" not in text


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert not caught.value.code
    assert re.fullmatch(r"rootstock \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_unexpected_failure_prints_two_lines_and_exits_70(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rootstock.cli.data.describe_keys", lambda: 1 / 0)
    assert fails("params") == "70"
    told = capsys.readouterr().err
    assert told.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert len(told.splitlines()) == 2


def test_results_without_out_are_never_among_the_images(tmp_path, monkeypatch):
    write_classes(tmp_path / "data", {"ants": 9, "bees": 9})
    monkeypatch.chdir(tmp_path / "data")
    assert "is inside the folder of the images" in fails("train", ".")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["ants", "bees"]


def test_doctor_reads_the_parameters_of_the_folder(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text("seeds: 1\n")
    with pytest.raises(SystemExit):
        main(["doctor"])
    assert "seeds: no such key; did you mean seed?" in capsys.readouterr().out


@pytest.mark.integration
def test_doctor_checks_the_cache_that_dvc_unpickles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mine").mkdir(mode=0o700)

    def verdict(text):
        (tmp_path / ".dvc/config.local").write_text(text)
        with contextlib.suppress(SystemExit):
            main(["doctor", "--json"])
        rows = json.loads(capsys.readouterr().out)
        return next(row["verdict"] for row in rows if row["name"] == "dvc cache")

    assert verdict("") == "warn"
    own = f"[core]\n    site_cache_dir = {tmp_path}/mine\n['remote \"team\"']\n    url = /100%\n"
    assert verdict(own) == "ok"
    (tmp_path / "mine").chmod(0o777)
    assert verdict(own) == "warn"


@pytest.mark.integration
def test_doctor_asks_the_services(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    told = capsys.readouterr().out
    assert "secret" not in told
    verdicts = {one["name"]: one["verdict"] for one in json.loads(told)}
    assert (verdicts["tracking"], verdicts["ray cluster"]) == ("fail", "fail")
    assert not (tmp_path / "mlflow.db").exists()


def test_help_needs_no_heavy_import():
    code = "import sys; from rootstock.cli.main import build_parser as b; b(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mlflow", "ray", "pyarrow"} & set(found.stdout.split())


@pytest.mark.integration
def test_train_promote_and_roll_back_by_command(tmp_path, capsys):
    write_classes(tmp_path / "data", {"ants": 16, "bees": 16})
    options = ["--set", f"backbone.weights={tiny_backbone().card.weights}", "--set"]
    command = ["train", "data", "--out", ".", *options, "search.engine=sequential"]
    assert json.loads(run(capsys, *command, "--json"))["registration"]["alias"] == "champion"
    told = run(capsys, *command)
    assert "Already registered as version 1 (champion)" in told
    assert "/#/experiments/1/runs?workflowType=machine_learning" in told
    assert "Already registered as version 1" in run(capsys, "register")
    assert "no challenger and no earlier champion" in fails("compare")
    command += ["--set", "train.l2_grid=[0.2]"]
    pages = "".join(page.read_text() for page in (tmp_path / "reports").glob("*.md"))
    pictures = (tmp_path / "reports").rglob("*.png")
    assert not [
        picture.name
        for picture in pictures
        if picture.relative_to(tmp_path / "reports").as_posix() not in pages
    ]
    main(command)
    told = capsys.readouterr()
    assert "Version 2 against champion 1: not promoted" in told.out
    assert told.out.startswith("result    ")
    assert " test images are right (95 % interval" in told.out
    assert "rootstock serve --model artifacts/model" in told.out
    assert len(told.out.splitlines()) < 15
    assert re.search(r"^train: \w+, about .* expected$", told.err, re.MULTILINE)
    page = run(capsys, "compare")
    assert page.startswith("# version 1 (champion) against version 2 (challenger)")
    assert "cannot show which model is better" in page
    assert (tmp_path / "reports/plots/compare/images.png").is_file()
    assert json.loads(run(capsys, "compare", "2", "artifacts/model", "--json"))["gain"] == 0
    assert "is version 1 (by" in fails("promote", "2", "--expect", "7")
    assert "data is not a model directory" in fails("compare", "1", "data")
    assert "were not versioned by DVC" in fails("reproduce", "1", "--data")
    main(["promote", "1", "--why", "to be sure"])
    assert "already the champion" in capsys.readouterr().err
    told = run(capsys, "promote", "2", "--expect", "1", "--why", "a second\nopinion")
    assert "version 2 is now the champion" in told
    page = run(capsys, "compare")
    assert page.startswith("# version 1 (previous_champion) against version 2 (champion)")
    unknown = fails("promote", "9")
    assert "versions: 1, 2" in unknown
    assert "name an existing version, such as 2" in unknown
    assert json.loads(run(capsys, "rollback", "--json"))["version"] == "1"
    changes = json.loads(run(capsys, "history", "--json"))["changes"]
    assert [change["kind"] for change in changes] == ["gate", "promotion", "rollback"]
    assert r"a second\nopinion" in run(capsys, "history")
    (tmp_path / "new.jpg").write_bytes(jpeg(3))
    assert "new.jpg: " in run(capsys, "predict", "new.jpg")
    assert "accuracy" in run(capsys, "evaluate", "data")


@pytest.mark.integration
def test_a_dead_tracking_server_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    write_classes(tmp_path / "data", {"ants": 12, "bees": 12})
    weights = f"backbone.weights={tiny_backbone().card.weights}"
    started = time.monotonic()
    message = fails("train", "data", "--out", "out", "--set", weights)
    assert "http://127.0.0.1:9" in message
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out/artifacts/model").exists()


@pytest.mark.parametrize("command", [["promote", ""], ["promote", "1", "--expect", ""]])
def test_an_empty_variable_of_a_script_promotes_nothing(command, capsys):
    assert fails(*command) == "2"
    assert "must not be empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["history"], ["promote", "1"], ["rollback"], ["reproduce", "1"]]
)
def test_a_folder_without_a_registry_gets_none(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "there is no registry at" in fails(*command)
    assert not list(tmp_path.iterdir())


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "rootstock", "--help"], capture_output=True)
    assert b"Train image models from labelled images" in done.stdout
