"""The model card: one page for people who use a model and did not make it.

After Mitchell et al., "Model cards for model reporting", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.backbones.licence import describe_licence
from rootstock.data.manifest import Manifest
from rootstock.model.lineage import open_ends
from rootstock.model.twin import TwinFacts, describe_twin
from rootstock.system.escape import code_span, escape_markdown
from rootstock.tasks import get_task
from rootstock.tasks.task import Task

MAX_STRATA = 20


def render_card(
    *,
    name: str,
    manifest: Manifest,
    facts: Mapping[str, Any],
    plan: Mapping[str, Any],
    metrics: Mapping[str, float],
    rows: Sequence[Mapping[str, str]],
    licence: str,
    source: str,
) -> str:
    """Return the card as Markdown.

    ``facts`` is what bundle.json holds, ``plan`` what plan.json holds; ``rows`` are those of
    per_class.csv.
    """
    card, lineage = facts["card"], facts["lineage"]
    task = get_task(facts["task"])
    summary = manifest.summary()
    splits = {split: len(manifest.rows(split)) for split in ("train", "val", "test")}
    reasons = [one for one in plan["reasons"] if one["choice"] in ("strategy", "backbone", "tap")]
    return "\n".join(
        [
            f"# Model card: {escape_markdown(name)}",
            "",
            f"{task.describe(facts['names'])} "
            f"Architecture {code_span(card['architecture'])}, strategy `{facts['strategy']}`, "
            f"input {facts['preprocess']['input_size']} pixels, "
            f"{_describe_geometry(facts['preprocess'])}.",
            "",
            "## How good it is",
            "",
            *task.describe_quality(metrics, rows, facts["unknown_share"]),
            *_describe_int8(task, metrics, facts),
            *_describe_robustness(task, metrics),
            "",
            "## What it learnt from",
            "",
            f"- {summary['n_usable']} images: {splits['train']} to train, {splits['val']} to "
            f"validate, {splits['test']} to test; {len(summary['quarantined'])} of "
            f"{summary['n_images']} files were quarantined.",
            f"- Classes: {_list_strata(summary['classes'])}",
            f"- Source of the images: {escape_markdown(source)}. Licence of the images: "
            f"{escape_markdown(licence)}.",
            f"- Backbone {code_span(card['name'] or card['architecture'])}, pretrained on "
            f"{escape_markdown(card['pretrained_on'])}, "
            f"{escape_markdown(describe_licence(card['license']))}"
            f"{'; from ' + escape_markdown(card['source']) if card.get('source') else ''}.",
            "",
            "## How it was made, and why so",
            "",
            # What follows in brackets is the path of the weights on the machine that trained.
            *(
                f"- {one['choice']}: {escape_markdown(one['value'].split(' (')[0])}. {one['why']}"
                for one in reasons
            ),
            *_describe_departure(planned=plan["strategy"], strategy=facts["strategy"]),
            *_describe_final_head(facts),
            *_describe_ensemble(facts),
            "",
            "## What it is for, and what not",
            "",
            "- For images like those that it learnt from, taken the same way, of these classes.",
            *task.describe_limits(facts["unknown_share"]),
            "- Accuracy on images of another origin is not known: measure it with "
            "`rootstock evaluate`.",
            "- Nothing was measured of how it treats groups of people. Do not let it alone decide "
            "about persons.",
            "",
            "## How to make it again",
            "",
            f"- `rootstock reproduce VERSION` tells the commands. Commit "
            f"`{lineage.get('git_commit') or 'not recorded'}`, data `{lineage['data_hash'][:12]}`, "
            f"plan `{lineage.get('plan_hash', '')[:12]}`, weights "
            f"`{lineage.get('weights_sha256', '')[:12]}`, seed {lineage.get('seed')}.",
            *(f"- Missing: {one}." for one in open_ends(lineage)),
            "",
        ]
    )


def _describe_int8(task: Task, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> list[str]:
    """Return a line on the int8 twin; none for models made before there was one."""
    if not facts.get("int8"):
        return []
    text = describe_twin(TwinFacts.model_validate(facts["int8"]))
    if f"int8_{task.score}" in metrics:
        name = task.score.replace("_", " ")
        text += f" On the test images its {name} is {metrics[f'int8_{task.score}']:.4f}."
    return [f"- {text}"]


def _describe_robustness(task: Task, metrics: Mapping[str, float]) -> list[str]:
    """Return a line on spoiled and attacked images; none for models made before it was measured."""
    score = task.score
    if f"robust_{score}" not in metrics:
        return []
    name = score.replace("_", " ")
    attacked = ""
    if f"adversarial_{score}" in metrics:
        attacked = (
            f"An attacker who moves each pixel by 2 of 255 levels, which nobody sees, brings it to "
            f"{metrics[f'adversarial_{score}']:.3f}. "
        )
    moved = "" if task.spatial else ", rotation, scale, crop"
    return [
        "",
        f"On test images spoiled as by a bad camera (noise, blur, JPEG, brightness, "
        f"contrast{moved}) the {name} is {metrics[f'robust_{score}']:.3f} on average. "
        f"{attacked}`rootstock robustness` measures more.",
    ]


def _describe_departure(*, planned: str, strategy: str) -> list[str]:
    """Return a line if training kept something else than the plan's strategy made."""
    if strategy == planned:
        return []
    return [
        f"- Fine-tuning by `{planned}` did not improve the head that it began from, so that head "
        f"is the model: its strategy is `{strategy}`."
    ]


def _describe_final_head(facts: Mapping[str, Any]) -> list[str]:
    """Return a line if the head has learnt from the validation images too."""
    if facts.get("fitted_to", "train") == "train":
        return []
    return [
        "- The head was chosen with the training images, and then fitted again to training and "
        "validation images together. The metrics of the validation images in `bundle.json` are "
        "those of the head before that; those of the test images are of this model."
    ]


def _describe_ensemble(facts: Mapping[str, Any]) -> list[str]:
    """Return a line if several networks answer together."""
    count = facts.get("networks", 1)
    if count == 1:
        return []
    return [
        f"- {count} networks were fine-tuned with different seeds, and their answers are averaged. "
        f"A prediction costs {count} forward passes. Features, and what is unknown or similar by "
        "them, are those of the first network."
    ]


def _describe_geometry(preprocess: Mapping[str, Any]) -> str:
    """Return what is seen of an image that is not square; old models crop."""
    return {
        "crop": "the centre of an image",
        "pad": "the whole image, padded to a square",
        "squash": "the whole image, squashed to a square",
    }[preprocess.get("geometry", "crop")]


def _list_strata(counts: Mapping[str, Mapping[str, int]]) -> str:
    shown = [f"{escape_markdown(name)} ({sum(splits.values())})" for name, splits in counts.items()]
    more = f" and {len(shown) - MAX_STRATA} more" if len(shown) > MAX_STRATA else ""
    return ", ".join(shown[:MAX_STRATA]) + more + "."
