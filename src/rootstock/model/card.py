"""The model card: one page for people who use a model but did not make it.

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
from rootstock.tasks.metric_words import name_metric, show_metric
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

    ``facts`` is the content of bundle.json, ``plan`` that of plan.json, ``rows`` that of
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
            "## Quality",
            "",
            *task.describe_quality(metrics, rows, facts["unknown_share"]),
            *_describe_int8(task, metrics, facts),
            *_describe_robustness(task, metrics),
            "",
            "## Training data",
            "",
            f"- {summary['n_usable']} images: {splits['train']} for training, {splits['val']} for "
            f"validation, {splits['test']} for the test. {len(summary['quarantined'])} of "
            f"{summary['n_images']} files were quarantined.",
            f"- Classes: {_list_strata(summary['classes'])}",
            f"- Source of the images: {escape_markdown(source)}. Licence of the images: "
            f"{escape_markdown(licence)}.",
            f"- Backbone {code_span(card['name'] or card['architecture'])}, pretrained on "
            f"{escape_markdown(card['pretrained_on'])}, "
            f"{escape_markdown(describe_licence(card['license']))}"
            f"{'; from ' + escape_markdown(card['source']) if card.get('source') else ''}.",
            "",
            "## Choices and reasons",
            "",
            # The brackets contain the path of the weights on the training machine.
            *(
                f"- {one['choice'].capitalize()}: "
                f"{escape_markdown(one['value'].split(' (')[0])}. {one['why']}"
                for one in reasons
            ),
            *_describe_departure(planned=plan["strategy"], strategy=facts["strategy"]),
            *_describe_final_head(facts),
            *_describe_ensemble(facts),
            "",
            "## Intended use and limits",
            "",
            "- Use the model for images like the training images, taken the same way, of these "
            "classes.",
            *task.describe_limits(facts["unknown_share"]),
            "- The accuracy on images from another source is unknown: measure it with "
            "`rootstock evaluate`.",
            "- The model was not tested for fairness between groups of people. Do not use it as "
            "the only basis for decisions about people.",
            "",
            "## Reproduction",
            "",
            f"- `rootstock reproduce VERSION` prints the commands. Commit "
            f"{_show_commit(lineage)}, data `{lineage['data_hash'][:12]}`, "
            f"plan `{lineage.get('plan_hash', '')[:12]}`, weights "
            f"`{lineage.get('weights_sha256', '')[:12]}`, seed {lineage.get('seed')}.",
            *(f"- {one[0].upper()}{one[1:]}." for one in open_ends(lineage)),
            "",
        ]
    )


def _describe_int8(task: Task, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> list[str]:
    """Return a line on the int8 twin; empty for older models."""
    if not facts.get("int8"):
        return []
    text = describe_twin(TwinFacts.model_validate(facts["int8"]))
    if f"int8_{task.score}" in metrics:
        name = name_metric(task.score)
        text += f" On the test images its {name} is {metrics[f'int8_{task.score}']:.4f}."
    return [f"- {text}"]


def _show_commit(lineage: Mapping[str, Any]) -> str:
    return f"`{commit}`" if (commit := lineage.get("git_commit")) else "not recorded"


def _describe_robustness(task: Task, metrics: Mapping[str, float]) -> list[str]:
    """Return a line on corrupted and attacked images; empty for older models without figures."""
    score = task.score
    if f"robust_{score}" not in metrics:
        return []
    name = name_metric(score)
    attacked = ""
    if f"adversarial_{score}" in metrics:
        attacked = (
            "An attack that changes each pixel by 2 of 255 levels, which is invisible, reduces "
            f"it to {show_metric(score, metrics[f'adversarial_{score}'])}. "
        )
    robust = show_metric(score, metrics[f"robust_{score}"])
    moved = "" if task.spatial else ", rotation, scale, crop"
    return [
        "",
        f"On test images with camera faults (noise, blur, JPEG, brightness, "
        f"contrast{moved}) the {name} is {robust} on average. "
        f"{attacked}`rootstock robustness` shows details.",
    ]


def _describe_departure(*, planned: str, strategy: str) -> list[str]:
    """Return a line if the kept model is not that of the plan's strategy."""
    if strategy == planned:
        return []
    return [
        f"- Fine-tuning by `{planned}` did not improve the head that it started from, so that head "
        f"is the model, and its strategy is `{strategy}`."
    ]


def _describe_final_head(facts: Mapping[str, Any]) -> list[str]:
    """Return a line if the head has also learned from the validation images."""
    if facts.get("fitted_to", "train") == "train":
        return []
    return [
        "- The head was chosen on the training images, and then fitted again to training and "
        "validation images together. In `bundle.json` the metrics on the validation images are "
        "those of the head before this; those on the test images are of this model."
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
    """Return the part of an image that is not square that the model sees; old models crop."""
    return {
        "crop": "the centre of an image",
        "pad": "the whole image, padded to a square",
        "squash": "the whole image, resized to a square",
    }[preprocess.get("geometry", "crop")]


def _list_strata(counts: Mapping[str, Mapping[str, int]]) -> str:
    shown = [f"{escape_markdown(name)} ({sum(splits.values())})" for name, splits in counts.items()]
    more = f" and {len(shown) - MAX_STRATA} more" if len(shown) > MAX_STRATA else ""
    return ", ".join(shown[:MAX_STRATA]) + more + "."
