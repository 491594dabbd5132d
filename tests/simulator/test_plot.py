import re
from xml.etree import ElementTree as ET

from llama_router.simulator.plot import HEIGHT_PX, WIDTH_PX, wait_plot

SVG = "{http://www.w3.org/2000/svg}"


def curves(svg: str) -> list[list[tuple[float, float]]]:
    root = ET.fromstring(svg)  # noqa: S314 - made by the function under test
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", line.attrib["points"])]
        for line in root.iter(f"{SVG}polyline")
    ]


def test_each_policy_has_a_curve_and_its_name() -> None:
    svg = wait_plot({"a<b>": [0.0, 1.0, 20.0], "fast": [0.0, 0.1]}, "waits & more")
    assert len(curves(svg)) == 2
    text = "".join(ET.fromstring(svg).itertext())  # noqa: S314 - as above
    assert "a<b>" in text
    assert "waits & more" in text


def test_curves_rise_within_the_picture() -> None:
    for curve in curves(wait_plot({"x": [0.0, 0.02, 3.0, 500.0], "y": [9.0] * 5000}, "t")):
        assert curve == sorted(curve, key=lambda point: (point[0], -point[1]))
        assert all(0 <= x <= WIDTH_PX and 0 <= y <= HEIGHT_PX for x, y in curve)
        assert len(curve) < 500


def test_nothing_to_draw_is_still_a_picture() -> None:
    assert curves(wait_plot({"x": []}, "empty")) == [[]]
    assert curves(wait_plot({}, "empty")) == []
