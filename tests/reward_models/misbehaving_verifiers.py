"""Verifiers that misbehave on command, for the tests of the pool; importable in worker processes."""

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from reward_models import MathVerifier, Verdict


class ByCommand:
    """Does what the response says; anything else is compared with the reference."""

    def check(self, response: str, reference: str) -> Any:
        """Obey, or compare."""
        command, _, argument = response.partition(" ")
        action = getattr(self, f"_{command}", None) if response.isascii() and response.isprintable() else None
        if action is not None:
            return action(argument)
        return Verdict.correct(response) if response == reference else Verdict.wrong(response)

    def _sleep(self, seconds: str) -> Verdict:
        time.sleep(float(seconds))
        return Verdict.correct("slept")

    def _spin(self, argument: str) -> Verdict:
        """Compute in C without giving the interpreter back; no signal handler and no thread gets a turn."""
        return Verdict.correct(str((7 ** (10**9)) % 10))

    def _exit(self, status: str) -> Verdict:
        os._exit(int(status))

    def _leave(self, argument: str) -> Verdict:
        sys.exit(3)

    def _eat(self, argument: str) -> Verdict:
        eaten = []
        while True:
            eaten.append(b"\1" * 2**26)

    def _raise(self, message: str) -> Verdict:
        raise RuntimeError(message if message else 10**5000)

    def _number(self, argument: str) -> float:
        return 1.0

    def _loaded(self, module: str) -> Verdict:
        return Verdict.correct(str(module in sys.modules))

    def _environment(self, name: str) -> Verdict:
        return Verdict.correct(str(os.environ.get(name)))

    def _pid(self, argument: str) -> Verdict:
        return Verdict.correct(str(os.getpid()))

    def _unprintable(self, argument: str) -> Verdict:
        return Verdict.correct(10**100_000)  # type: ignore[arg-type]

    def _deep(self, argument: str) -> Verdict:
        return self._deep(argument)

    def _signal(self, name: str) -> Verdict:
        os.kill(os.getpid(), getattr(signal, name))
        return Verdict.correct("alive")

    def _cpu(self, seconds: str) -> Verdict:
        """Compute for so many seconds of processor time, and say how many more the system would grant."""
        begin = time.process_time()
        while time.process_time() < begin + float(seconds):
            pass
        return Verdict.correct(str(resource.getrlimit(resource.RLIMIT_CPU)[0] - begin))

    def _write(self, count: str) -> Verdict:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * int(count))
            file.flush()
        return Verdict.correct("written")

    def _say(self, words: str) -> Verdict:
        print(words, flush=True)
        print(words, file=sys.stderr, flush=True)
        return Verdict.correct("said")

    def _haunt(self, delay: str) -> Verdict:
        """Answer, and leave a thread that soon takes the interpreter and does not give it back."""
        threading.Timer(float(delay), self._spin, [""]).start()
        return Verdict.correct("haunted")

    def _orphan(self, marker: str) -> Verdict:
        """Start a process of its own and end."""
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", marker])
        os._exit(0)

    def _wire(self, argument: str) -> Verdict:
        """Write bytes, given in hexadecimal, where verdicts are written, then sleep."""
        text, _, seconds = argument.partition(" ")
        [socket] = [fd for fd in range(3, 64) if _is_socket(fd)]
        os.write(socket, bytes.fromhex(text))
        time.sleep(float(seconds))
        return Verdict.correct("slept")

    def _length(self, argument: str) -> Verdict:
        return Verdict.correct("x" * 100_000, "y" * 100_000)

    def _family(self, marker: str) -> Verdict:
        """Start a process of its own and hang."""
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", marker])
        time.sleep(60)
        return Verdict.correct("slept")


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class LengthOnly:
    """Echoes how many characters arrived."""

    def check(self, response: str, reference: str) -> Verdict:
        """Say the length and the last character's number."""
        return Verdict.correct(f"{len(response)} {ord(response[-1])}", reference)


class FailsToLoad:
    """Cannot be warmed up."""

    def check(self, response: str, reference: str) -> Verdict:
        """Never called."""
        return Verdict.correct(response)

    def warm_up(self) -> None:
        """Fail."""
        raise OSError("the grammar file is missing")


class Unpicklable:
    """Holds something that no process can receive."""

    def __init__(self) -> None:
        self.function = lambda text: text

    def check(self, response: str, reference: str) -> Verdict:
        """Never called."""
        return Verdict.correct(response)


class TellsWhatIsLoaded(MathVerifier):
    """A math verifier that says whether a module was loaded before its first answer."""

    def check(self, response: str, reference: str) -> Verdict:
        """Look for the module named in the response."""
        return Verdict.correct(str(response in sys.modules))


class OddGold:
    """Accepts only its own gold responses, and fails to write some of them."""

    def check(self, response: str, reference: str) -> Verdict:
        """Compare with the gold response."""
        return Verdict.correct(response) if response == f"gold {reference}" else Verdict.wrong(response)

    def gold_response(self, reference: str) -> Any:
        """Write one, or do what the reference says."""
        if reference == "raise":
            raise LookupError("no gold here")
        if reference == "hang":
            time.sleep(60)
        return {"number": 1.0, "hidden": None}.get(reference, f"gold {reference}")


class RecklessAlgebra:
    """Evaluates whatever stands in the response, without a limit; for the answers in `poisons.RECKLESS`."""

    def check(self, response: str, reference: str) -> Verdict:
        """Compare what the response evaluates to with what the reference does."""
        import sympy

        command, _, rest = response.partition(" ")
        if command == "regex":
            return Verdict.correct(rest) if re.fullmatch(r"(a+)+b", rest) else Verdict.wrong(rest)
        value = sympy.sympify(rest if command == "print" else response)
        shown = str(value)
        return Verdict.correct(shown) if value == sympy.sympify(reference) else Verdict.wrong(shown)

    def warm_up(self) -> None:
        """Load the algebra."""
        import sympy  # noqa: F401


class EvenDigits:
    """Correct is a response with an even number of digits: something that a random policy hits and misses.

    It cannot read the reference "damaged", and hangs on every other response where the reference is "slow".
    """

    def check(self, response: str, reference: str) -> Verdict:
        """Count the digits."""
        digits = str(sum(character.isdigit() for character in response))
        if reference == "damaged":
            return Verdict.bad_reference("damaged")
        if not response:
            return Verdict.no_answer()
        if reference == "slow" and len(response) % 2:
            time.sleep(60)
        return Verdict.wrong(digits) if int(digits) % 2 else Verdict.correct(digits)
