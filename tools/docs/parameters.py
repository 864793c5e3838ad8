"""The page of all keys of params.yaml."""

import json
from itertools import groupby

from rootstock.config.describe import Key, describe_keys
from rootstock.config.schema import Config
from tools.docs.markdown import MADE, make_table

INTRODUCTION = f"""# Parameters

{MADE}
All keys of `params.yaml`. `rootstock params` prints the same list. A key that is not in your file
has its default. Override a key for one run with `--set key=value`, or with `-S key=value` for
`dvc exp run`:

```bash
rootstock train photos/ --set plan.strategy=linear_probe
```

"""


def make_parameters_page() -> str:
    """Return the page: a table for each section of params.yaml."""
    parts = [INTRODUCTION]
    for section, keys in groupby(describe_keys(), _section):
        meaning = "" if not section else Config.model_fields[section].annotation.__doc__  # type: ignore[union-attr]
        parts.append(f"## {section or 'General'}\n\n{meaning}\n\n{_table(list(keys))}\n")
    return "".join(parts)


def _section(key: Key) -> str:
    head, dot, _ = key.name.partition(".")
    return head if dot else ""


def _table(keys: list[Key]) -> str:
    return make_table(
        ["key", "default", "values", "meaning"],
        [(f"`{key.name}`", f"`{_show(key.default)}`", key.allowed, key.meaning) for key in keys],
    )


def _show(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
