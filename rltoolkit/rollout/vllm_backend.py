"""Rollouts with vLLM in this process, beside the trainer: weights go from module to engine through memory."""

import math
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.adapters import adapted_weights, check_adapter
from rltoolkit.rollout.base import check_request
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.servers.proof import PROBE, make_proof
from rltoolkit.rollout.vllm_engine import end_engine, start_engine
from rltoolkit.rollout.vllm_sampling import sampling_fields
from rltoolkit.rollout.vllm_worker.rltoolkit_vllm_worker import PolicyWorker, load_weights
from rltoolkit.rollout.weights import (
    FolderKind,
    PolicySource,
    adapter_of,
    architecture_of,
    folder_kind,
    load_policy,
    memory_state,
    policy_config,
    policy_state,
    refuse_other_model,
    state_fingerprint,
    write_adapter,
)
from rltoolkit.types import Sample, SamplingParams, StopReason

__all__ = ["VLLMBackend"]


class VLLMBackend:
    """A `RolloutBackend` on vLLM in this process; version 0 is what the model folder holds.

    LoRA adapters stay unmerged where `engine.lora_rank` allows their rank and vLLM their kind, else they are
    merged into copies of the weights.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        eos_token_ids: Sequence[int],
        engine: EngineOptions = EngineOptions(),  # noqa: B008  frozen
        seed: int = 0,
    ) -> None:
        """Start vLLM with a model folder; `eos_token_ids` end a sample.

        `seed` is that of the engine; samples depend on the seeds given to `generate` alone. Raises RolloutError
        when vLLM is not installed or cannot start, and when the folder has no model.
        """
        if not eos_token_ids:
            raise RolloutError("eos_token_ids is empty; give at least one token that ends a sample")
        if Path(model).exists() and folder_kind(model) is not FolderKind.MODEL:
            raise RolloutError(f"{model} is the folder of an adapter; start with the model it belongs to, then sync it")
        self.version = 0
        self._eos = tuple(eos_token_ids)
        self._options = engine
        self._config = policy_config(model)
        self._llm = start_engine(model, engine, seed)
        self._context: int = self._llm.llm_engine.model_config.max_model_len
        self._state = "awake"
        self._cache_awake = True
        """Whether the memory of the cache is there; on waking it follows with the first request."""
        self._whole = True
        """Whether the engine's weights are those of `version`; false from the begin of a sync to its good end."""
        self._scratch = Path(tempfile.mkdtemp(prefix="rltoolkit-vllm-"))
        self._release = weakref.finalize(self, _release, self._llm, self._scratch)  # also when nobody closes
        self._base: Path | None = Path(model) if Path(model).is_dir() else None
        """The folder of the model that adapter folders stand on; None where it came from memory."""
        self._prints: str | None = None
        """Of the weights in the engine, where they are those of a PEFT model without its adapter."""
        self._plain = True
        """Whether the weights in the engine are whole, with no adapter merged into them."""
        self._adapter: Any = None
        self._adapters = 0

    def generate(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        n: int,
        sampling: SamplingParams,
        seeds: Sequence[int],
    ) -> list[list[Sample]]:
        """Draw `n` samples for every prompt; see `RolloutBackend.generate`.

        vLLM computes a row among others, so that rounding may flip a rare token with the batch.
        """
        self._check_usable()
        vocabulary = getattr(self._config.get_text_config(decoder=True), "vocab_size", None)
        check_request(prompt_token_ids, n, sampling, seeds, vocabulary=vocabulary, context=self._context)
        if not prompt_token_ids:
            return []
        from vllm import SamplingParams as EngineParams  # type: ignore[import-not-found]

        params = [EngineParams(**sampling_fields(sampling, n, s, self._eos), detokenize=False) for s in seeds]
        samples = self._ask(prompt_token_ids, params)
        return [drawn * n if sampling.greedy else drawn for drawn in samples]

    def _ask(self, prompt_token_ids: Sequence[Sequence[int]], params: list[Any]) -> list[list[Sample]]:
        """Draw the samples that `params` say, whatever the weights are."""
        if not self._cache_awake:
            self._llm.wake_up(tags=["kv_cache"])
            self._cache_awake = True
        prompts = [{"prompt_token_ids": list(prompt)} for prompt in prompt_token_ids]
        answers = self._llm.generate(prompts, params, use_tqdm=False, lora_request=self._adapter)
        if [list(answer.prompt_token_ids) for answer in answers] != [p["prompt_token_ids"] for p in prompts]:
            raise RolloutError(
                f"vLLM gave {len(answers)} answers that are not those to the {len(prompts)} prompts; were requests "
                "left over from an interrupted call? Make a new backend"
            )
        return [[self._sample(out) for out in sorted(a.outputs, key=lambda out: out.index)] for a in answers]

    def sync(self, source: PolicySource, version: int) -> None:
        """Take over the weights of `source` and call them `version`; see `RolloutBackend.sync`.

        A refused source leaves the weights as they were. When loading itself fails, or when the engine does not
        sample from a module's weights afterwards, nothing can be sampled until a sync succeeds.
        """
        self._check_awake()
        if isinstance(source, nn.Module):
            self._sync_module(source)
        elif folder_kind(source) is FolderKind.MODEL:
            refuse_other_model(source, self._config)
            self._load(PolicyWorker.rltoolkit_load, str(source))
            self._base, self._plain, self._adapter = Path(source), True, None
        else:
            self._sync_adapter(Path(source))
        if not self._llm.reset_prefix_cache():
            self._whole = False
            raise RolloutError("vLLM did not reset its prefix cache, requests are still running; sync between requests")
        if isinstance(source, nn.Module):
            self._prove(source)
        self.version, self._whole = version, True

    def sleep(self) -> None:
        """Give device memory back until `wake`: the cache, and the weights to the host's memory.

        Does nothing on a CPU, or with `engine.sleep` false, than to refuse requests.
        """
        self._check_awake()
        if self._sleeps():
            self._llm.sleep(level=1)  # level 2 would drop the weights, and nobody may have to sync after waking
            self._cache_awake = False
        self._state = "asleep"

    def wake(self) -> None:
        """Take the memory of the weights again; that of the cache follows with the first request.

        So that a sync after waking does not have to find room for its copies beside the cache.
        """
        if self._state == "asleep":
            if self._sleeps():
                self._llm.wake_up(tags=["weights"])
            self._state = "awake"

    def close(self) -> None:
        """End the engine and free its memory."""
        if self._state != "closed":
            self._state, self._llm = "closed", None
            self._release()

    def __enter__(self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _check_awake(self) -> None:
        if self._state != "awake":
            remedy = "call wake() first" if self._state == "asleep" else "make a new one"
            raise RolloutError(f"the rollout backend is {self._state}; {remedy}")

    def _check_usable(self) -> None:
        self._check_awake()
        if not self._whole:
            raise RolloutError("the rollout backend is without weights: its last sync failed midway; sync again")

    def _sleeps(self) -> bool:
        return bool(self._llm.llm_engine.model_config.enable_sleep_mode)

    def _sync_module(self, module: nn.Module) -> None:
        refuse_other_model(module, self._config)
        facts = adapter_of(module)
        if facts is None or not self._takes(facts.rank, facts.unmerged):
            self._load(load_weights, policy_state(module))
            self._base, self._plain, self._adapter = None, facts is None, None
            return
        folder = self._scratch / "adapter"
        write_adapter(module, folder)
        check_adapter(folder, self._architecture)
        base = policy_state(module, with_adapter=False)
        prints = state_fingerprint(base)
        if prints != self._prints:
            self._load(load_weights, base)
            self._base, self._prints, self._plain = None, prints, True
        self._use_adapter(folder)

    def _prove(self, module: nn.Module) -> None:
        """Have the engine sample, and hold its log-probs against the module's own: see `servers.proof`."""
        from vllm import SamplingParams as EngineParams

        proof = make_proof(module, int(policy_config(module).get_text_config(decoder=True).vocab_size))
        params = EngineParams(**sampling_fields(PROBE, 1, 0, self._eos), detokenize=False)
        drawn = [samples[0] for samples in self._ask(proof.prompts, [params] * len(proof.prompts))]
        difference = proof.difference([s.token_ids[0] for s in drawn], [s.logprobs[0] for s in drawn])
        dtype = str(self._llm.llm_engine.model_config.dtype)
        if not difference <= proof.allowed(dtype):
            self._whole, self._prints, self._plain = False, None, False
            raise RolloutError(
                f"vLLM does not sample from the policy: its log-probs differ by {difference:.3g} on average, at most "
                f"{proof.allowed(dtype)} was expected ({dtype} there). The loaded weights did not reach all of its "
                "layers; leave engine.lora_rank unset, so that adapters are merged, or use rollout.backend transformers"
            )

    def _sync_adapter(self, folder: Path) -> None:
        facts = adapter_of(folder)
        unmerged = facts is not None and self._takes(facts.rank, facts.unmerged)
        if unmerged:
            check_adapter(folder, self._architecture)
        if unmerged and self._plain:
            self._use_adapter(folder)
            return
        if self._base is None:
            kind = facts.reason if facts is not None and facts.reason else f"engine.lora_rank is {self._lora_rank()}"
            reason = "the engine holds the merged weights of another one" if unmerged else f"to be merged: {kind}"
            raise RolloutError(
                f"the adapter {folder} needs its base model ({reason}), which is in no folder; sync the PEFT model "
                "itself, or sync the base model's folder first"
            )
        if unmerged:
            self._load(PolicyWorker.rltoolkit_load, str(self._base))
            self._plain = True
            self._use_adapter(folder)
            return
        model = load_policy(self._base)
        for name, tensor in adapted_weights(architecture_of(model), memory_state(model), folder).items():
            model.get_parameter(name).data = tensor
        self._load(load_weights, policy_state(model))
        self._adapter = None

    def _takes(self, rank: int, unmerged: bool) -> bool:
        """Whether the engine loads an adapter of this rank as it is."""
        most = self._lora_rank()
        return unmerged and most is not None and rank <= most

    def _lora_rank(self) -> int | None:
        return self._options.max_lora_rank

    def _use_adapter(self, folder: Path) -> None:
        """Load an adapter folder under a new id (vLLM caches by id), in the place of the last one."""
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        self._adapters += 1
        request = LoRARequest(f"policy-{self._adapters}", self._adapters, str(folder))
        engine = self._llm.llm_engine
        self._whole = False
        try:
            if self._adapter is not None:
                engine.remove_lora(self._adapter.lora_int_id)
                self._adapter = None
            engine.add_lora(request)
        except Exception as error:  # vLLM raises what it likes for an adapter that does not fit
            raise RolloutError(
                f"vLLM cannot load the adapter {folder}: {error}; sync the whole model, or leave engine.lora_rank "
                "unset, so that adapters are merged"
            ) from error
        self._adapter = request

    @cached_property
    def _architecture(self) -> Any:
        """Build the engine's model on the meta device."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self._config)

    def _load(self, load: Any, weights: dict[str, Tensor] | str) -> None:
        """Run a loader of the worker; ValueError is its refusal, all else leaves the weights mixed."""
        before = (self._whole, self._prints, self._plain)
        self._whole, self._prints, self._plain = False, None, False
        try:
            self._llm.collective_rpc(load, args=(weights,))
        except ValueError as error:
            self._whole, self._prints, self._plain = before
            raise RolloutError(f"the weights do not fit the model of the engine: {error}") from error
        except Exception as error:  # whatever vLLM raises
            raise RolloutError(f"vLLM could not take over the weights: {error}; sync again") from error

    def _sample(self, output: Any) -> Sample:
        """Convert one answer of vLLM."""
        ids = tuple(output.token_ids)
        logprobs = tuple(float(step[token].logprob) for token, step in zip(ids, output.logprobs, strict=True))
        if not ids or not all(map(math.isfinite, logprobs)):
            raise RolloutError(
                f"vLLM drew {len(ids)} tokens with log-probs that are not all finite; check the policy's weights and "
                "its dtype"
            )
        if output.finish_reason not in ("stop", "length"):
            raise RolloutError(f"vLLM ended a sample by {output.finish_reason!r}, neither stop nor length; ask again")
        return Sample(ids, logprobs, StopReason(output.finish_reason), self.version)


def _release(engine: Any, scratch: Path) -> None:
    end_engine(engine)
    shutil.rmtree(scratch, ignore_errors=True)
