"""A router as the control plane sees it, in the hands of a test."""

from collections.abc import Callable, Sequence

import httpx2
import msgspec

from llama_router.control.facade import (
    ControlError,
    DeviceInfo,
    Follower,
    ListedModel,
    ModelInfo,
    PlanInfo,
    RouterInfo,
    VictimInfo,
)

SECRET = "the-secret"

ALPHA = ModelInfo(
    id="org/alpha:Q4",
    names=("alpha.gguf",),
    source="hub_cache",
    state="unloaded",
    path="/models/alpha.gguf",
    mmproj="",
    group="",
    size_bytes=1000,
    created_s=1700000000,
)


class Lines:
    """A log's follower that has these lines and then fails, which ends the answer."""

    def __init__(self, lines: Sequence[str], wake: Callable[[], object]) -> None:
        self._lines = list(lines)
        self._wake = wake
        self.is_closed = False
        wake()

    def take(self) -> Sequence[str]:
        if not self._lines:
            raise RuntimeError("no more lines")
        self._wake()
        return [self._lines.pop(0)]

    def close(self) -> None:
        self.is_closed = True


class Router:
    """A facade over one model."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.problem = ""
        self.error: Exception | None = None
        self.asked_keys: list[str] = []
        self.asked_kinds: frozenset[str] = frozenset()
        self.follower: Lines | None = None
        self.history_count = 0
        self.asked_history: tuple[float, int] | None = None
        self.described: list[ModelInfo] = [ALPHA]
        self.other_names: list[ListedModel] = []

    async def models(self) -> list[ModelInfo]:
        if self.error is not None:
            raise self.error
        return list(self.described)

    async def model(self, name: str) -> ModelInfo:
        if name != ALPHA.id:
            raise ControlError(404, "model_not_found", f"no model {name}")
        return ALPHA

    async def others(self) -> list[ListedModel]:
        return list(self.other_names)

    async def listing(self, key: str) -> list[ListedModel]:
        self.asked_keys.append(key)
        return [listed(info) for info in await self.models()]

    async def listed(self, name: str, key: str) -> ListedModel:
        self.asked_keys.append(key)
        return listed(await self.model(name))

    async def load(self, name: str) -> ModelInfo:
        self.orders.append(f"load {name}")
        return msgspec.structs.replace(await self.model(name), state="loaded")

    async def unload(self, name: str) -> ModelInfo:
        self.orders.append(f"unload {name}")
        return await self.model(name)

    async def plan(self, name: str) -> PlanInfo:
        model = await self.model(name)
        return PlanInfo(
            model=model.id,
            state="unloaded",
            fits=True,
            reason="in place of beta",
            wait_s=2.5,
            load_cost_s=2.0,
            needs={"cpu": 1000},
            free={"cpu": 10},
            victims=(VictimInfo("beta", "not used for 5 s", 0),),
        )

    async def history(self, since_s: float, limit: int) -> list[bytes]:
        self.asked_history = (since_s, limit)
        if self.error is not None:
            raise self.error
        return [b'{"time_s":%d}' % number for number in range(self.history_count)][-limit:]

    async def info(self) -> RouterInfo:
        return RouterInfo(
            version="1",
            model_count=1,
            connection_count=2,
            requests_under_way=3,
            uptime_s=4.0,
            max_loop_lag_s=0.001,
            devices=(
                DeviceInfo(
                    name="cpu",
                    total_bytes=None,
                    budget_bytes=100,
                    reserved_bytes=110,
                    free_bytes=-10,
                ),
            ),
        )

    def config_problem(self) -> str:
        return self.problem

    async def whose_log(self, name: str | None, key: str) -> str | None:
        self.asked_keys.append(key)
        if name is None and key == "ann":
            raise ControlError(403, "forbidden", "this key is for some models only")
        return None if name is None else (await self.model(name)).id

    def log_text(self, model: str | None) -> str:
        return f"log of {model}\n<script>\n"

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        self.follower = Lines([f"first of {model}", "second"], wake)
        return self.follower

    def follow_events(
        self, model: str | None, wake: Callable[[], object], kinds: frozenset[str]
    ) -> Follower:
        self.asked_kinds = kinds
        self.follower = Lines([f'{{"model":"{model}"}}', "{}"], wake)
        return self.follower


def listed(info: ModelInfo) -> ListedModel:
    return ListedModel(id=info.id, created_s=info.created_s, info=info)


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]
