from pathlib import Path

from bench import catalog, catalog_files
from llama_router.catalog.headers import Header, read_header


def test_the_files_are_models_with_holes_for_weights(tmp_path: Path) -> None:
    small, large = catalog_files.make(tmp_path, 2, 1)

    headers = [read_header(path) for path in (*small, *large)]
    assert all(isinstance(header, Header) for header in headers)
    counts = [header.metadata.vocabulary for header in headers if isinstance(header, Header)]
    assert counts == [300, 300, catalog_files.LARGE_TOKENS]
    assert all(path.stat().st_blocks * 512 < path.stat().st_size for path in small)
    assert len({path.read_bytes()[:200] for path in small}) == 2


def test_reading_large_headers_is_timed(tmp_path: Path) -> None:
    figures = catalog.headers(catalog_files.make(tmp_path, 0, 1)[1])

    assert [figure.unit for figure in figures] == ["ms", "ms"]
    assert all(figure.value > 0 for figure in figures)


def test_a_missed_target_is_told() -> None:
    assert catalog.Figure("x", 1.0, "s").is_good
    assert catalog.Figure("x", 1.0, "s", 1.0).is_good
    assert not catalog.Figure("x", 1.1, "s", 1.0).is_good
