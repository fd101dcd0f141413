"""Fine-tunings that programs order through `/v1/fine_tuning/jobs`: jobs of kind `train` over uploaded files.

    name, spec = FineTunings(jobs, files, settings.state_dir).prepare(jid, user, body, trained.list())
    jobs.submit(jid, KIND, name, spec)

`webapp/api/fine_tunings.py` orders and shows them; the pipelines train them as any other, and serve the model at the
end. What the order said stands in the spec under `fine_tuning`. The job has its own links to the files, in
state_dir/jobs/<job>/; the result goes to state_dir/trained/<model's name>-<job>/.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError, InvalidRequest, shown
from services.jobs.jobs import ORDER, Job, Jobs
from services.jobs.owned_jobs import OwnedJobs
from services.jobs.stored_files import StoredFiles, made_id
from services.jobs.training import PREFERENCES_RATE, ROW_SIZES, TrainingConfig, preset_names, read_training
from services.jobs.training_jobs import Place, training_spec
from services.models.catalogue import packaged_models
from services.openai.fine_tuning_bodies import FineTuningBody, Hyperparameters
from services.serving.trained_models import TrainedModel

KIND = "train"
TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"
ID_PREFIX = "ftjob-"  # of the ids of all that are ordered here
MAX_NAME_CHARS = 64
TUNED = "tuned"  # the suffix where nobody gives one
METHODS = {"answers": "supervised", "dpo": "dpo"}  # objective → OpenAI's method; kto has none

# Of our configuration what the body says elsewhere, and what is not for a program to say.
_ELSEWHERE = frozenset({"name", "model", "objective", "seed", "eval_files", "sky", "wandb"})

_TWICE = {  # OpenAI's hyperparameter → ours of the same meaning
    "n_epochs": "epochs",
    "batch_size": "tokens_per_step",
    "learning_rate_multiplier": "learning_rate",
    "beta": "dpo_beta",
}


@dataclass(frozen=True)
class Base:
    """A model to train. `model`: as the training program finds it; `root`: the oldest ancestor, which presets name."""

    name: str
    model: str
    root: str


class FineTunings:
    """Makes the specs of the fine-tunings of one installation, and finds their jobs."""

    def __init__(self, jobs: Jobs, files: StoredFiles, state_dir: Path) -> None:
        self._files = files
        self._state_dir = state_dir.resolve()
        self._owned = OwnedJobs(jobs, "fine-tuning", KIND)

    def prepare(
        self, jid: str, user: str, body: FineTuningBody, trained: Sequence[TrainedModel]
    ) -> tuple[str, dict[str, Any]]:
        """The name and spec of a job, whose folder has the data. It needs the disk and not Redis.

        Raises InvalidRequest, which names the field, or NotFound.
        """
        given = {TRAINING: body.training_file, VALIDATION: body.validation_file}
        stored = {
            name: self._files.get_for("fine-tune", file_id, user, field=f"{Path(name).stem}_file")
            for name, file_id in given.items()
            if file_id is not None
        }
        try:
            preset, config = configured(body, trained)
            out = self._state_dir / "trained" / f"{config.name}-{jid[-8:]}"
            spec = training_spec(
                config, [str(self._files.content(each)) for each in stored.values()], str(out), Place()
            )
        except ConfigurationError as error:
            raise InvalidRequest.of(error) from None
        links = {name: self.data_folder(jid) / name for name in stored}
        for name, file in stored.items():
            self._files.link(file, links[name])
        order = {
            "user": user,
            "model": body.model,
            "training_file": body.training_file,
            "validation_file": body.validation_file,
            "hyperparameters": told_hyperparameters(config, preset),
            "metadata": dict(body.metadata or {}),
        }
        return config.name, {**spec, "data": [str(path) for path in links.values()], "serve": True, ORDER: order}

    def data_folder(self, jid: str) -> Path:
        return self._state_dir / "jobs" / jid

    def get(self, job_id: str, user: str) -> Job:
        """Raises NotFound."""
        return self._owned.get(job_id, user)

    def find(self, job_id: str, user: str) -> Job | None:
        """The same; None where there is none."""
        return self._owned.find(job_id, user)

    def list(self, user: str, *, newest_first: bool = True, after: str = "") -> Iterator[Job]:
        """The user's, beginning behind the id `after`. Raises InvalidRequest for an id of none of them."""
        return self._owned.list(user, newest_first=newest_first, after=after)


def results_id(job: Job) -> str:
    """The id of the file with the losses of all steps, which the pipelines write at the end."""
    return made_id(job.created_s, job.id, "results")


# -- what a body asks for --------------------------------------------------------------------------------------------


def configured(body: FineTuningBody, trained: Sequence[TrainedModel]) -> tuple[TrainingConfig, TrainingConfig]:
    """The preset and the configuration of an order. Raises ConfigurationError, which names the field."""
    _check_places(body)
    _check_said_once(body.options)
    presets = {name: read_training(name) for name in preset_names()}
    base = _base(body.model, presets, trained)
    objective = _objective(body, presets)
    chosen = _preset(body, base, objective, presets)
    fields = {
        "max_refused": 0.0,  # as with OpenAI, a line that cannot be trained on ends the job
        **_numbers(body.options, presets[chosen], objective),
        **_more(body.options),
        "name": f"{base.name[: MAX_NAME_CHARS - 1 - len(body.suffix or TUNED)]}-{body.suffix or TUNED}",
        "model": base.model,
        "objective": objective,
    }
    if body.validation_file is not None:
        fields["eval_files"] = 1
    if body.seed is not None:
        fields["seed"] = body.seed
    return presets[chosen], read_training(chosen, fields)


def _check_places(body: FineTuningBody) -> None:
    """Raises ConfigurationError for hyperparameters that stand where nobody would read them."""
    if body.method is None:
        return
    other = "dpo" if body.method.type == "supervised" else "supervised"
    if (options := getattr(body.method, other)) is not None and options.hyperparameters is not None:
        raise ConfigurationError(f"the method is {body.method.type}; leave {other} out", field=f"method.{other}")
    if body.hyperparameters is not None and body.hyperparameters is not body.options:
        raise ConfigurationError("`method` has hyperparameters, too: leave these out", field="hyperparameters")


def _check_said_once(options: Hyperparameters) -> None:
    """Raises ConfigurationError for a number that is given in OpenAI's words and in ours."""
    more = options.model_extra or {}
    for theirs, ours in _TWICE.items():
        if options.number(theirs) is not None and ours in more:
            raise ConfigurationError(f"{ours} and {theirs} say the same; give one of them", field=ours)


def _base(model: str, presets: Mapping[str, TrainingConfig], trained: Sequence[TrainedModel]) -> Base:
    """What `/v1/models` lists under a name goes before a preset of that name."""
    known = {each.name: Base(each.name, each.name, each.name) for each in packaged_models()}
    for each in trained:
        if each.trainable:
            known.setdefault(each.name, Base(each.name, each.path, (*each.lineage, each.base)[0]))
    for name, preset in presets.items():
        for called in (preset.model, name):
            known.setdefault(called, Base(Path(called).name, preset.model, preset.model))
    if model not in known:
        raise ConfigurationError(f"{shown(model)} cannot be trained here; known: {', '.join(known)}", field="model")
    return known[model]


def _objective(body: FineTuningBody, presets: Mapping[str, TrainingConfig]) -> str:
    """The one of the method; without a method that of the preset, which may have none of OpenAI's."""
    if body.method is not None:
        return next(objective for objective, method in METHODS.items() if method == body.method.type)
    preset = presets.get(body.options.preset or body.model)
    return preset.objective if preset else "answers"


def _preset(body: FineTuningBody, base: Base, objective: str, presets: Mapping[str, TrainingConfig]) -> str:
    """The preset's name: the one that is asked for, else the one for this model, at best for this objective, too."""
    if chosen := body.options.preset:
        if chosen not in presets:
            raise ConfigurationError(f"{shown(chosen)} is not a preset; presets: {', '.join(presets)}", field="preset")
        return chosen
    for wanted in (objective, "answers"):
        if body.model in presets and presets[body.model].objective == wanted:
            return body.model
        found = [name for name, each in presets.items() if (each.model, each.objective) == (base.root, wanted)]
        if len(found) > 1:
            raise ConfigurationError(
                f"several presets train {shown(body.model)}; give one in the hyperparameters: {', '.join(found)}",
                field="preset",
            )
        if found:
            return found[0]
    raise ConfigurationError(
        f"no preset trains {shown(body.model)}; give one in the hyperparameters, as `preset`: {', '.join(presets)}",
        field="model",
    )


def _numbers(options: Hyperparameters, preset: TrainingConfig, objective: str) -> dict[str, Any]:
    """OpenAI's hyperparameters in our words."""
    multiplier = options.number("learning_rate_multiplier") or 1.0
    fields = {"learning_rate": _rate(preset, objective) * multiplier}
    seq_len = (options.model_extra or {}).get("seq_len", preset.seq_len)
    if size := options.number("batch_size"):
        if type(seq_len) is not int:
            raise ConfigurationError(f"seq_len={shown(seq_len)} is not a whole number", field="seq_len")
        fields["tokens_per_step"] = size * seq_len * ROW_SIZES[objective].sequences
    named = {"epochs": options.number("n_epochs"), "dpo_beta": options.number("beta")}
    return fields | {name: value for name, value in named.items() if value is not None}


def _rate(preset: TrainingConfig, objective: str) -> float:
    """The learning rate whose multiplier is 1."""
    return preset.learning_rate * (1.0 if objective in (preset.objective, "answers") else PREFERENCES_RATE)


def _more(options: Hyperparameters) -> dict[str, Any]:
    """The fields of our configuration. `read_training` refuses what is none."""
    more = options.model_extra or {}
    if wrong := sorted(_ELSEWHERE & set(more)):
        raise ConfigurationError(
            f"{wrong[0]} is no hyperparameter: the body says it elsewhere, or the operator does", field=wrong[0]
        )
    return more


def told_hyperparameters(config: TrainingConfig, preset: TrainingConfig) -> dict[str, Any]:
    """The hyperparameters of the run, as OpenAI calls them. A run that ends by its steps has no number of epochs."""
    epochs = int(config.epochs) if config.epochs.is_integer() else config.epochs
    told = {
        **({"max_steps": config.max_steps} if config.max_steps else {"n_epochs": epochs}),
        "batch_size": -(-config.tokens_per_step // config.row_tokens),
        "learning_rate_multiplier": config.learning_rate / _rate(preset, config.objective),
    }
    return {**told, "beta": config.dpo_beta} if config.objective == "dpo" else told
