"""The folder of a critic: its weights in one file, and which critic they belong to."""

from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reward_models.critics.value_model import saved_squash
from rltoolkit.errors import ModelError
from rltoolkit.rlsp.critics.critic import Critic, SharedCritic
from rltoolkit.rlsp.critics.lora import LoraCritic

__all__ = ["CRITIC_FOLDER", "CriticForm", "fitting_form", "load_critic", "load_weights", "save_critic", "saved_form"]

CRITIC_FOLDER = "critic"
WEIGHTS_FILE = "model.safetensors"
HEAD_KEY = "head.linear.weight"
OWN = "own"


@dataclass(frozen=True)
class CriticForm:
    """What has to agree before weights can be loaded; None for what a kind does not have."""

    kind: str
    """separate, lora or shared, as in RLSPConfig; "own" for a module of the user."""
    streams: int | None = None
    width: int | None = None
    r: int | None = None
    alpha: float | None = None

    def __str__(self) -> str:
        parts = [f"kind {self.kind}"]
        parts += [f"{self.streams} value(s) per position"] if self.streams is not None else []
        parts += [f"hidden size {self.width}"] if self.width is not None else []
        parts += [f"r {self.r}, alpha {self.alpha!r}"] if self.r is not None and self.alpha is not None else []
        return ", ".join(parts)

    @classmethod
    def of(cls, critic: nn.Module) -> "CriticForm":
        """The form of a critic in memory."""
        kinds = {Critic: "separate", SharedCritic: "shared", LoraCritic: "lora"}
        kind = next((name for known, name in kinds.items() if isinstance(critic, known)), OWN)
        alpha = float(critic.alpha) if isinstance(critic, LoraCritic) else None
        return _form(kind, {name: tuple(t.shape) for name, t in critic.state_dict().items()}, alpha)

    def admits(self, other: "CriticForm") -> bool:
        """Whether another form agrees in everything that this one says."""
        mine, theirs = asdict(self), asdict(other)
        return all(value is None or value == theirs[name] for name, value in mine.items())


def saved_form(folder: Path) -> CriticForm | None:
    """The form of the critic that a folder holds; None for the folder of something else. Reads no weights.

    Raises ModelError for a file of weights that is broken.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
            notes = file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read: {error}; the file is broken, copy or save it again") from error
    if HEAD_KEY not in shapes:
        return None
    kind = notes.get("critic", "separate")  # the only kind there was before kinds were noted
    return _form(kind, shapes, float(notes["alpha"]) if "alpha" in notes else None)


def fitting_form(name_or_path: str, wanted: CriticForm) -> CriticForm | None:
    """The form of the saved critic that a run is to start from; None for a model, which only a separate one can be.

    Raises ModelError for a critic of another form than the wanted one, and for one whose values are squashed.
    """
    folder = Path(name_or_path)
    form, said = saved_form(folder), f"critic_model_name_or_path is {name_or_path}"
    if form is None:
        if wanted.kind == "separate":
            return None
        inside = f" (its folder {CRITIC_FOLDER} does)" if saved_form(folder / CRITIC_FOLDER) else ""
        raise ModelError(
            f"{said}, which holds no saved critic{inside}; a critic of kind {wanted.kind} has the policy's backbone: "
            "give the folder of a critic of this kind, or null"
        )
    if not wanted.admits(form):
        raise ModelError(
            f"{said}, a critic of {form}; this run's is of {wanted}: set critic, advantage, critic_lora_r and "
            "critic_lora_alpha as they were for that one, or give another"
        )
    squash = saved_squash(folder)
    if squash != "none":
        raise ModelError(
            f"{said}, a critic whose values go through {squash}; RLSP's have no bound: give one with squash 'none'"
        )
    return form


def _form(kind: str, shapes: dict[str, tuple[int, ...]], alpha: float | None) -> CriticForm:
    if kind == OWN:
        return CriticForm(OWN)
    streams, width = shapes[HEAD_KEY]
    r = next((shape[0] for name, shape in shapes.items() if name.endswith(".down")), None) if kind == "lora" else None
    return CriticForm(kind, streams, width, r, alpha)


def save_critic(folder: Path, critic: nn.Module, state: dict[str, Tensor]) -> None:
    """Write the critic's weights (and its backbone's config, where it has one) into `folder`/critic."""
    target = folder / CRITIC_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    config = getattr(getattr(critic, "backbone", None), "config", None)
    if config is not None:
        config.save_pretrained(target)
    form = CriticForm.of(critic)
    notes = {"format": "pt", "critic": form.kind} | ({} if form.alpha is None else {"alpha": repr(form.alpha)})
    # clones: safetensors refuses tensors that share memory, as tied weights do
    save_file({name: t.detach().cpu().clone() for name, t in state.items()}, target / WEIGHTS_FILE, metadata=notes)


def load_critic(folder: Path, critic: nn.Module) -> None:
    """Load what `save_critic` wrote; raises ModelError when it is missing or belongs to another critic."""
    path = folder / CRITIC_FOLDER / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{path} does not exist; {folder} is no checkpoint of RLSP, or its critic was deleted")
    load_weights(folder / CRITIC_FOLDER, critic)


def load_weights(folder: Path, critic: nn.Module) -> None:
    """Load the weights of a critic's own folder into a critic of the same form."""
    path = folder / WEIGHTS_FILE
    found, wanted = saved_form(folder), CriticForm.of(critic)
    if wanted.kind != OWN and found != wanted:
        raise ModelError(
            f"{path} does not fit this critic: it holds one of {found or 'no kind known here'}, and this run has one "
            f"of {wanted}; set critic, advantage, critic_lora_r and critic_lora_alpha as they were, or give another "
            "critic"
        )
    device = next(critic.parameters()).device
    try:
        critic.load_state_dict(load_file(path, device=str(device)))
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit this critic: {error}") from error
