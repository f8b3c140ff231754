"""A preference game that is given as a matrix over named responses."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.errors import VerifierError
from reward_models.local_models.prompts import Prompt, query_name
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference

# Decimal fractions such as 0.1 and 0.9 do not add up to 1 exactly.
TOLERANCE = 1e-9


class MatrixOracle(BaseOracle):
    """Answers from `matrix[i][j]` = P(responses[i] beats responses[j]), for every prompt alike.

    Responses are recognised by their exact text; another text has no preference and counts as failed.

    Raises:
        VerifierError: not square over the responses, a value outside [0, 1], P + P^T not 1, a diagonal not 0.5.
    """

    def __init__(self, responses: Sequence[str], matrix: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self._index = {response: index for index, response in enumerate(responses)}
        if len(self._index) != len(responses):
            raise VerifierError(f"the responses {list(responses)!r} are not all different; name each once")
        self._matrix = tuple(tuple(float(value) for value in row) for row in matrix)
        _check_game(self._matrix, len(responses))

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        del prompts  # the same game for all
        return [self._look_up(first, second) for first, second in zip(firsts, seconds, strict=True)]

    def _look_up(self, first: str, second: str) -> Preference:
        for text in (first, second):
            if text not in self._index:
                return Preference.failed(f"the response {query_name(text)!r} is not in the matrix")
        return Preference(self._matrix[self._index[first]][self._index[second]])


def _check_game(matrix: tuple[tuple[float, ...], ...], size: int) -> None:
    shape = [len(row) for row in matrix]
    if shape != [size] * size:
        raise VerifierError(
            f"the matrix has rows of lengths {shape}; expected {size} rows of {size}, as many responses"
        )
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if not 0.0 <= value <= 1.0:
                raise VerifierError(f"matrix[{i}][{j}] is {value}; expected a probability in [0, 1]")
            if abs(value + matrix[j][i] - 1.0) > TOLERANCE:
                what = "0.5 on the diagonal" if i == j else f"1 - matrix[{j}][{i}] = {1 - matrix[j][i]}"
                raise VerifierError(f"matrix[{i}][{j}] is {value}; expected {what}, so that P(a, b) + P(b, a) = 1")
