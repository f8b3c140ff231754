import asyncio

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.http import ServerError, StatusError
from rltoolkit.rollout.servers.server import Server


def ask(stand_in, use):
    async def run():
        server = Server(stand_in.url, 5.0)
        try:
            return await use(server)
        finally:
            server.client.close()

    return asyncio.run(run())


def test_facts(stand_ins):
    stand_in = stand_ins()
    stand_in.lora_rank = 16
    stand_in.adapters = {"an adapter": None}
    facts = ask(stand_in, lambda server: server.facts())
    assert (facts.model, facts.dtype, facts.device, facts.max_model_len) == ("policy", "torch.float32", "cpu", 128)
    assert (facts.logprobs_mode, facts.extension, facts.max_lora_rank) == ("processed_logprobs", True, 16)


def test_a_description_of_another_form_is_said_to_be_so(stand_ins):
    stand_in = stand_ins()
    stand_in.at_server_info = lambda body: (200, {"config": "text"})
    with pytest.raises(ServerError, match=r"describes itself in a form not known here.*vllm_config"):
        ask(stand_in, lambda server: server.facts())


@pytest.mark.parametrize(("status", "kind"), [(502, ServerError), (403, RolloutError), (404, RolloutError)])
def test_what_may_pass_is_told_from_what_will_not(stand_ins, status, kind):
    stand_in = stand_ins()
    stand_in.fault = lambda path: status
    with pytest.raises(kind, match=f"{status}") as caught:
        ask(stand_in, lambda server: server.facts())
    assert isinstance(caught.value, ServerError) == (kind is ServerError)


def test_a_look_begins_after_its_caller_came_and_is_shared(stand_ins):
    stand_in = stand_ins()

    async def use(server):
        stand_in.fault = lambda path: 0.2
        stand_in.tag = "old"
        early = asyncio.create_task(server.fresh_tag())
        await asyncio.sleep(0.1)  # the look is under way
        late = [asyncio.create_task(server.fresh_tag()) for _ in range(20)]
        await asyncio.sleep(0)
        late[3].cancel()  # does not disturb the others
        await early
        stand_in.tag = "new"
        await asyncio.wait(late)
        return [task.result() for task in late if not task.cancelled()]

    assert ask(stand_in, use) == ["new"] * 19
    assert stand_in.count("/weight_info") == 2


def test_a_look_that_fails_fails_for_all_who_wait_and_for_nobody_later(stand_ins):
    stand_in = stand_ins()

    async def use(server):
        stand_in.fault = lambda path: 500
        results = await asyncio.gather(*(server.fresh_tag() for _ in range(3)), return_exceptions=True)
        stand_in.fault = lambda path: None
        return results, await server.fresh_tag()

    failures, later = ask(stand_in, use)
    assert all(isinstance(failure, StatusError) for failure in failures)
    assert later == "default"


def test_a_cache_that_is_busy_for_a_moment_is_asked_again(stand_ins):
    stand_in = stand_ins()
    answers = iter([False, False, True])
    stand_in.at_reset_prefix_cache = lambda body: (200, {"success": next(answers)})
    ask(stand_in, lambda server: server.reset_cache())
    assert stand_in.count("/reset_prefix_cache") == 3


def test_a_server_without_endpoints_for_adapters(stand_ins):
    stand_in = stand_ins()
    stand_in.at_load_lora_adapter = lambda body: (404, {"detail": "Not Found"})
    with pytest.raises(RolloutError, match=r"no endpoint to load adapters.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        ask(stand_in, lambda server: server.load_adapter("a", "/nowhere", 5))
    stand_in.at_load_lora_adapter = lambda body: (404, {"error": {"message": "no adapter found"}})
    with pytest.raises(ServerError, match="did not load the adapter /nowhere: HTTP 404: no adapter found"):
        ask(stand_in, lambda server: server.load_adapter("a", "/nowhere", 5))


def test_down_cancels_what_runs_but_for_the_one_that_noticed(stand_ins):
    stand_in = stand_ins()

    async def use(server):
        server.mark_up("tag", "policy")

        async def notice():
            await asyncio.sleep(0.01)
            server.mark_down("gone")
            return "noticed"

        server.tasks = {asyncio.create_task(asyncio.sleep(60)), asyncio.create_task(notice())}
        done = await asyncio.gather(*server.tasks, return_exceptions=True)
        return {str(type(d).__name__) for d in done}, server.tag, server.reachable, server.describe()

    kinds, tag, reachable, said = ask(stand_in, use)
    assert kinds == {"CancelledError", "str"}
    assert (tag, reachable) == (None, False)
    assert said.endswith("(for 0 s): gone")
