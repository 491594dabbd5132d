"""From the name in a request to the model it means."""

from collections.abc import Iterable

from llama_router.catalog.model import CatalogModel

_MAX_MENTIONED_IDS = 10  # in an error message


class UnknownModelError(LookupError):
    """No model has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} is not known; GET /v1/models lists those that are")
        self.name = name


class AmbiguousModelError(LookupError):
    """Several models have that name; ``ids`` are their ids."""

    def __init__(self, name: str, ids: tuple[str, ...]) -> None:
        mentioned = ", ".join(ids[:_MAX_MENTIONED_IDS])
        super().__init__(f"model {name!r} can be any of {mentioned}; use one of these ids")
        self.name = name
        self.ids = ids


class Catalog:
    """Models by id and by their other names. Names are opaque, case-sensitive keys."""

    def __init__(self, models: Iterable[CatalogModel]) -> None:
        """Take the models in the order of listing; of two with one id the first counts."""
        self._by_id: dict[str, CatalogModel] = {}
        # Nearly all names are one model's: thousands of containers would be the collector's.
        self._by_name: dict[str, CatalogModel | list[CatalogModel]] = {}
        for model in models:
            if model.id in self._by_id:
                continue
            self._by_id[model.id] = model
            for name in dict.fromkeys(model.names):
                known = self._by_name.setdefault(name, model)
                if isinstance(known, list):
                    known.append(model)
                elif known is not model:
                    self._by_name[name] = [known, model]
        names = (*self._by_id, *self._by_name)
        self._longest_name_chars = max(map(len, names), default=0)

    def __contains__(self, name: str) -> bool:
        """Tell whether a model, or several, have that id or name."""
        return name in self._by_id or name in self._by_name

    @property
    def models(self) -> tuple[CatalogModel, ...]:
        """All models, each once."""
        return tuple(self._by_id.values())

    def resolve(self, name: str) -> CatalogModel:
        """Give the model of that id, else the one of that name; invalid models too.

        Raises `UnknownModelError` or `AmbiguousModelError`.
        """
        model = self._by_id.get(name)
        if model is not None:
            return model
        found = self._by_name.get(name)
        if found is None:
            raise UnknownModelError(name)
        if isinstance(found, list):
            raise AmbiguousModelError(name, tuple(model.id for model in found))
        return found

    def longest_prefix(self, path: str) -> tuple[CatalogModel, str] | None:
        """Split a decoded path without its leading slash into a model and the rest.

        Ids contain slashes, so the longest prefix that ends at a slash or at the path's end wins;
        the rest begins with a slash or is empty. None when no prefix names a model.
        Raises `AmbiguousModelError`.
        """
        end = len(path)
        if end > self._longest_name_chars:
            # A path may have thousands of slashes, of which no name has more than a few.
            end = path.rfind("/", 0, self._longest_name_chars + 1)
        while end > 0:
            name = path[:end]
            if name in self:
                return self.resolve(name), path[end:]
            end = path.rfind("/", 0, end)
        return None
