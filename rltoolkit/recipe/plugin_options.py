"""The options of the verifiers and exploration rewards that a recipe can name, one class each.

They are checked with the recipe, before anything of the verifier is imported. A test holds them to the constructors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rltoolkit.recipe.schema import OutcomeSection, Section, Text, groups_of, list_to_tuple, one_group_pattern

AnswerPlace = Annotated[
    Literal["boxed", "marked", "lenient", "whole"], Field(description="where the answer stands in a response")
]
RepetitionPenalty = Annotated[
    float, Field(ge=0.0, le=1.0, description="share of its reward that a response of nothing but repetition loses")
]
ThinkingEnd = Annotated[str | None, Field(description="only the text behind the last one counts")]


def _regular_expression(value: object) -> object:
    if isinstance(value, str):
        groups_of(value)
    return value


class NoOptions(Section):
    """Takes none."""


class MathOptions(Section):
    """Keyword arguments of reward_models.MathVerifier."""

    extraction: Literal["boxed", "marked", "lenient"] = "boxed"
    thinking_end: ThinkingEnd = "</think>"
    box: Literal["last", "first"] = "last"
    integers_only: bool = False


class CountdownOptions(Section):
    """Keyword arguments of reward_models.CountdownVerifier."""

    thinking_end: ThinkingEnd = "</think>"


class IntegerOptions(Section):
    """Keyword arguments of reward_models.integer.IntegerVerifier."""

    extraction: AnswerPlace = "boxed"
    thinking_end: ThinkingEnd = "</think>"


class ExactOptions(Section):
    """Keyword arguments of reward_models.text_match.ExactVerifier."""

    ignore_case: bool = False
    extraction: AnswerPlace = "boxed"
    thinking_end: ThinkingEnd = "</think>"


class RegexOptions(Section):
    """Keyword arguments of reward_models.regex.RegexVerifier."""

    pattern: Annotated[str | None, BeforeValidator(one_group_pattern)] = None
    ignore_case: bool = False
    extraction: AnswerPlace | None = None
    thinking_end: ThinkingEnd = "</think>"


class ChoiceOptions(Section):
    """Keyword arguments of reward_models.choice.ChoiceVerifier."""

    labels: Annotated[str, Field(pattern="^[A-Za-z0-9]{2,}$", description="letters or digits such as ABCDE")] = (
        "ABCDEFGHIJ"
    )
    extraction: AnswerPlace = "boxed"
    thinking_end: ThinkingEnd = "</think>"


class NumericOptions(Section):
    """Keyword arguments of reward_models.numeric.NumericVerifier."""

    rel_tol: Annotated[float, Field(ge=0.0, lt=1.0, description="relative to the reference")] = 1e-6
    abs_tol: Annotated[float, Field(ge=0.0, description="in units of the answer")] = 0.0
    extraction: AnswerPlace = "boxed"
    thinking_end: ThinkingEnd = "</think>"


class JsonSchemaOptions(Section):
    """Keyword arguments of reward_models.json_schema.JsonSchemaVerifier."""

    # The alias keeps pydantic's own `schema` out of the way.
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema", description="a JSON schema")] = None
    compare: bool = False
    thinking_end: ThinkingEnd = "</think>"


class CombinationOptions(Section):
    """Keyword arguments of reward_models.combine.AllOf and AnyOf, each verifier written as `rewards.outcome` is."""

    verifiers: Annotated[
        tuple[OutcomeSection, ...],
        BeforeValidator(list_to_tuple),
        Field(min_length=1, description="a list such as [{verifier: integer}, {verifier: exact}]"),
    ]


class LengthOptions(Section):
    """Keyword arguments of reward_models.exploration.LengthExploration."""

    target_tokens: Annotated[int, Field(ge=1, description="tokens before the answer that earn the whole reward")]
    repetition_penalty: RepetitionPenalty = 0.0


class DistinctStepsOptions(Section):
    """Keyword arguments of reward_models.exploration.DistinctSteps."""

    target_steps: Annotated[int, Field(ge=1, description="distinct lines before the answer that earn the whole reward")]
    pattern: Annotated[str | None, BeforeValidator(_regular_expression)] = None
    repetition_penalty: RepetitionPenalty = 0.0


class JudgeOptions(Section):
    """Keyword arguments of reward_models.judge.JudgeSettings, and the criterion of judged_effort.JudgedEffort."""

    model: Annotated[Text, Field(description="the name that the server knows the judge by")]
    base_url: Annotated[Text | None, Field(description="such as http://localhost:8000/v1; null is OpenAI's own")] = None
    api_key_env: Annotated[Text | None, Field(description="environment variable that holds the key")] = None
    temperature: Annotated[float | None, Field(ge=0.0, le=2.0, description="null sends none")] = 0.0
    max_tokens: Annotated[int, Field(ge=1, description="of an answer of the judge")] = 1024
    timeout_s: Annotated[float, Field(gt=0.0, description="seconds for one request")] = 60.0
    total_timeout_s: Annotated[float, Field(gt=0.0, description="seconds for one question with its retries")] = 300.0
    max_retries: Annotated[int, Field(ge=0, description="attempts after the first")] = 4
    backoff_s: Annotated[float, Field(gt=0.0, description="seconds before the first retry, then doubled")] = 1.0
    concurrency: Annotated[int, Field(ge=1, description="requests in flight per process")] = 16
    structured: Annotated[
        Literal["auto", "json_schema", "off"], Field(description="whether answers are held to a JSON schema")
    ] = "auto"
    cache_dir: Annotated[Text | None, Field(description="folder that keeps the answers")] = None
    price_per_million_in: Annotated[float | None, Field(ge=0.0, description="per million prompt tokens")] = None
    price_per_million_out: Annotated[float | None, Field(ge=0.0, description="per million answer tokens")] = None
    max_text_chars: Annotated[int, Field(ge=100, description="a longer response is cut in its middle")] = 24_000
    criterion: Annotated[Text | None, Field(description="what is rated from 0 to 1; null: effort")] = None


OptionsOf = dict[str, type[Section]]

VERIFIER_OPTIONS: OptionsOf = {
    "math": MathOptions,
    "countdown": CountdownOptions,
    "integer": IntegerOptions,
    "exact": ExactOptions,
    "regex": RegexOptions,
    "choice": ChoiceOptions,
    "numeric": NumericOptions,
    "json_schema": JsonSchemaOptions,
    "all_of": CombinationOptions,
    "any_of": CombinationOptions,
}
EXPLORATION_OPTIONS: OptionsOf = {
    "none": NoOptions,
    "length": LengthOptions,
    "distinct_steps": DistinctStepsOptions,
    "judge": JudgeOptions,
}

# Where a recipe names something of ours: section, the key that names it, and the options that each name takes.
PLUGIN_OPTIONS: dict[tuple[str, ...], tuple[str, OptionsOf]] = {
    ("rewards", "outcome"): ("verifier", VERIFIER_OPTIONS),
    ("rewards", "exploration"): ("kind", EXPLORATION_OPTIONS),
}


def option_names(options: type[Section]) -> list[str]:
    """The options as a recipe writes them."""
    return [field.alias or name for name, field in options.model_fields.items()]
