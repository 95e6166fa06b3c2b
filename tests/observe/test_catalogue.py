"""What is exported stands in the documentation, and the other way round."""

import pathlib
import re

from trio_serve.observe.catalogue import CATALOGUE

DOCUMENT = pathlib.Path(__file__).parent.parent.parent / "docs" / "observability.md"


def test_every_metric_is_documented_with_its_kind_and_labels() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (counter|gauge|histogram|summary) \| ([^|]*) \|",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )

    documented = {name: (kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert documented == {name: (metric.kind.value, metric.labels) for name, metric in CATALOGUE.items()}
