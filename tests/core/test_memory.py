from llama_router.core.events import DeviceBytes, ModelSpec
from llama_router.core.memory import Memory, greater, lacks
from llama_router.core.model import Model
from tests.core.memory_world import devices


def model(**sizes: int) -> Model:
    return Model(ModelSpec("a", "", memory=devices(**sizes)))


def test_what_is_reserved_is_not_free_until_it_is_released() -> None:
    memory, one = Memory(devices(gpu=10, ram=20)), model(gpu=4)
    memory.reserve(one)
    assert memory.free() == {"gpu": 6, "ram": 20}
    memory.release(one)
    memory.release(one)
    assert (memory.free(), one.reserved) == ({"gpu": 10, "ram": 20}, ())


def test_each_device_must_have_enough_and_unknown_ones_are_not_looked_at() -> None:
    assert lacks({"gpu": 3, "ram": 9}, devices(gpu=4, ram=1))
    assert not lacks({"gpu": 4}, devices(gpu=4, npu=99))


def test_smaller_budgets_and_grown_engines_are_an_overdraft_that_goes_with_them() -> None:
    memory, one = Memory(devices(gpu=10)), model(gpu=6)
    memory.reserve(one)
    memory.set_budgets(devices(gpu=5))
    assert memory.overdraft == {"gpu": 1}
    memory.correct(one, devices(gpu=9))
    assert memory.overdraft == {"gpu": 4}
    memory.release(one)
    assert memory.overdraft == {}


def test_running_out_raises_the_estimate_to_a_device_of_its_own_and_then_beyond() -> None:
    memory, one = Memory(devices(gpu=100)), model(gpu=60)
    seen = []
    for _ in range(5):
        one.memory = memory.raised(one)
        seen.append((one.memory[0].size_bytes, memory.never_fits(one.memory)))
    assert seen[:4] == [(76, False), (96, False), (100, False), (126, True)]


def test_running_out_without_an_estimate_means_everything_there_is() -> None:
    memory, one = Memory(devices(gpu=100, ram=50)), model()
    assert memory.raised(one) == devices(gpu=100, ram=50)


def test_running_out_raises_what_is_expected_now_too() -> None:
    memory, one = Memory(devices(gpu=100, ram=50)), model(gpu=8)
    memory.reserve(one)
    one.memory = devices(gpu=40, ram=5)
    assert {part.device: part.size_bytes for part in memory.raised(one)} == {
        "gpu": 40,
        "ram": 5,
    }


def test_of_two_expectations_the_greater_holds_on_each_device() -> None:
    one = (DeviceBytes("cpu", 1), DeviceBytes("gpu", 5))
    other = (DeviceBytes("gpu", 3), DeviceBytes("cpu", 2), DeviceBytes("npu", 1))

    assert set(greater(one, other)) == {
        DeviceBytes("cpu", 2),
        DeviceBytes("gpu", 5),
        DeviceBytes("npu", 1),
    }
