"""How far a fine-tuning is. Dispatch writes it as the note of unit `train`; pages and commands read it.

    jobs.note(jid, UNIT, progress.as_note())                        # pipelines, after the points that it speaks of
    TrainingProgress.from_note(jobs.units(jid).get(UNIT, {}))       # the job page

It does not hold the points of the loss curve: those are in `Jobs.follow` and `Jobs.points`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

UNIT = "train"


@dataclass(frozen=True)
class TrainingProgress:
    """The state of a fine-tuning between two points. An unknown value is 0, None or empty."""

    state: str = "running"  # of the unit, as `Jobs.note` has it: waiting, running, done, failed
    records: int = 0  # the step that was done last
    of: int = 0  # steps
    loss: float | None = None
    lr: float | None = None
    tokens_per_s: float | None = None  # without padding
    eta_s: float | None = None
    epoch: float | None = None
    plan: dict[str, Any] = field(default_factory=dict)  # the fields of the event `plan`
    evals: list[dict[str, Any]] = field(default_factory=list)  # {step, loss}, of judged answers also rewards
    checkpoints: list[dict[str, Any]] = field(default_factory=list)  # {step, time_s, bytes, seconds to save}
    resumes: list[dict[str, Any]] = field(default_factory=list)  # {step, time_s}: where it went on after an end
    outcome: dict[str, Any] = field(default_factory=dict)  # of its target, as a mapping
    failure: str = ""  # what the program said of its end
    faulty_file: str = ""  # the name of the data file at fault; empty: none, or an older build trained
    model: str = ""  # the finished model's folder

    @property
    def fraction(self) -> float:
        """The part of the steps that is done, 0 to 1."""
        return min(self.records / self.of, 1.0) if self.of else 0.0

    @property
    def phase(self) -> str:
        """The target's state of a running job, such as `recovering`; empty while the target gives none."""
        return str(self.outcome.get("state", ""))

    @property
    def stopping(self) -> str:
        """What people read from a cancel to the end: the step that runs is done, then all is saved."""
        if not self.records:
            return "stopping: the trainer ends"
        step_s = (self.eta_s or 0.0) / max(self.of - self.records, 1)
        save_s = (self.checkpoints[-1].get("seconds") if self.checkpoints else None) or 0.0
        about = f" (about {max(round(step_s + save_s), 1)} s)" if step_s + save_s else ""
        return f"stopping: the trainer saves its checkpoint{about}"

    def as_note(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "TrainingProgress":
        """The progress in a note; of another version's note, the known fields."""
        return cls(**{each.name: note[each.name] for each in fields(cls) if note.get(each.name) is not None})
