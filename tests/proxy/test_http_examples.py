"""The example in examples/http_serving does what it says."""

import pathlib
import runpy

import pytest

from tests.proxy.http_client import serving

SHOP = pathlib.Path(__file__).parent.parent.parent / "examples" / "http_serving" / "shop.py"


@pytest.mark.real_clock
async def test_the_shop_answers() -> None:
    shop = runpy.run_path(str(SHOP), run_name="shop")
    async with serving(shop["shop"], prices=shop["prices"], report=shop["report"]) as served:
        assert (await served.ask("/double/21?plus=1")).text == "43"
        assert (await served.ask("/prices?item=cake")).text == '{"cake":6.5}'
        assert (await served.ask("/report")).text == "tea: 5.5\ncoffee: 8.5\ncake: 6.5\n"
