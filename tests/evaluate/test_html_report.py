"""A report is one HTML file that contains its pictures and neutralizes hostile words."""

import base64

from rootstock.evaluate.html_report import render_html
from rootstock.system.escape import escape_markdown, markdown_table

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg"
    "YGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
)


def test_pictures_are_inside(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/a.png").write_bytes(PIXEL)
    page = render_html("# Title\n\n![a picture](plots/a.png)\n", tmp_path)
    assert f'alt="a picture" src="data:image/png;base64,{base64.b64encode(PIXEL).decode()}"' in page
    assert "<title>Title</title>" in page
    assert "plots/a.png" not in page


def test_picture_elsewhere_or_missing_is_left_out(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "secret.png").write_bytes(PIXEL)
    text = "![a](../secret.png)\n\n![b](none.png)\n"
    assert "<img" not in render_html(text, tmp_path / "reports")


def test_tables_lists_bold_and_code_are_shown(tmp_path):
    text = "Some **bold `x|y`** text\nover two lines.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    text += "\n- one\n- two\n"
    page = render_html(text, tmp_path)
    assert "<p>Some <b>bold <code>x|y</code></b> text over two lines.</p>" in page
    assert "<tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td>2</td></tr>" in page
    assert "<ul><li>one</li><li>two</li></ul>" in page


def test_hostile_label_is_shown_as_it_is(tmp_path):
    label = "<script>alert(1)</script> a|b **x** `y` [z](javascript:1) &lt; \\"
    page = render_html("\n".join(markdown_table(["class"], [[label]])), tmp_path)
    shown = "&lt;script&gt;alert(1)&lt;/script&gt; a|b **x** `y` [z](javascript:1) &amp;lt; \\"
    assert f"<td>{shown}</td>" in page
    assert f"<p>{shown}</p>" in render_html(escape_markdown(label), tmp_path)
