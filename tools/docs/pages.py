"""Which pages are made from the code, and by which function."""

from collections.abc import Callable

from tools.docs.commands import make_commands_page
from tools.docs.http import make_http_page
from tools.docs.metrics import make_metrics_page
from tools.docs.parameters import make_parameters_page
from tools.docs.python_api import make_python_page
from tools.docs.time_and_accuracy import make_time_page

GENERATED: dict[str, Callable[[], str]] = {
    "reference/parameters.md": make_parameters_page,
    "reference/cli.md": make_commands_page,
    "reference/http.md": make_http_page,
    "reference/metrics.md": make_metrics_page,
    "reference/python.md": make_python_page,
    "reference/time-and-accuracy.md": make_time_page,
}
