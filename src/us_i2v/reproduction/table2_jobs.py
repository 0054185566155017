"""What is done in a cell of Table 2, and the result.json that it leaves.

A cell's folder, RUN/cells/<id>, holds its work and, once that is finished, result.json. Work goes on where it was
stopped: trainings from their checkpoint, synthesis from the clips that are there.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from us_i2v.classifier import TrainedOn, load_classifier
from us_i2v.config import Config
from us_i2v.data.atomic import write_bytes
from us_i2v.data.datasets import find_samples
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, DataError, OutputError
from us_i2v.evaluation.classification import check_seen, classify
from us_i2v.models.classifiers import NAMES
from us_i2v.pipeline import CPU_THREADS, ImageToVideo
from us_i2v.reproduction.methods import METHODS, finished, train_method
from us_i2v.reproduction.synthetic_sources import answer_stills, fit_control, reconstruct
from us_i2v.reproduction.table2_cells import Cell, all_cells, needs, place_name
from us_i2v.reproduction.table2_data import check_mixes, split_folder, stills_folder
from us_i2v.reproduction.table2_quality import judge, keep_best
from us_i2v.reproduction.table2_settings import (
    MAKERS,
    best_share,
    classifier_training,
    generator_changes,
    stage_training,
)
from us_i2v.training.classifier import train_classifier
from us_i2v.training.classifier_data import Sources
from us_i2v.training.loop import CHECKPOINT
from us_i2v.training.state import checkpoint_step
from us_i2v.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from us_i2v.presets import Stage
    from us_i2v.reproduction.methods import MethodName
    from us_i2v.reproduction.table2_settings import Table2Settings
    from us_i2v.training.report import Reporter

    Progress = Callable[[str], AbstractContextManager[Callable[[int, int, str], None]]]

RESULT = "result.json"


class TestedVideo(Config):
    """What a classifier says of a test video."""

    __test__: ClassVar[bool] = False

    file: str = Field(description="Name in the split's folder.")
    label: str = Field(description="True class.")
    group: str = Field(description="Patient.")
    probabilities: tuple[float, ...] = Field(description="In the order of the classes.")


class CellResult(Config):
    """result.json; what does not apply to the cell's stage is empty."""

    format_version: int = Field(1, ge=1, le=1, description="Layout of this file.")
    cell: str = Field(description="The cell's id.")
    plan: str = Field(description="Hash of the pinned settings and data.")
    seconds: float = Field(ge=0, description="Time that the last run of this cell took.")
    weights_sha256: str = Field("", description="Generator, or what made the clips.")
    trained: TrainedOn | None = Field(None, description="What a control without weights was fitted on.")
    clips: int = Field(0, ge=0, description="Synthetic clips made, or training clips of the classifier.")
    real: int = Field(0, ge=0, description="Real ones among a classifier's training clips.")
    left_out: dict[str, str] = Field({}, description="Stills or test videos that could not be used, and why.")
    quality: dict[str, float] = Field({}, description="Synthetic clip -> score 0..1.")
    classes: tuple[str, ...] = Field((), description="In the order of the probabilities.")
    videos: tuple[TestedVideo, ...] = Field((), description="The test videos.")


@dataclass(frozen=True)
class Workshop:
    """What all cells share.

    Attributes:
        out: RUN.
        settings: See `Table2Settings`; with classes.
        plan: Hash of the pinned settings and data.
        reporter: Receives the trainings' progress.
        progress: Opens a progress display for a named task.
        device: "auto", "cpu", "cuda", ...
        threads: CPU threads while generating.
    """

    out: Path
    settings: Table2Settings
    plan: str
    reporter: Reporter
    progress: Progress
    device: str
    threads: int = CPU_THREADS

    @property
    def cache(self) -> Path:
        """Decoded clips of all cells."""
        return self.out / "cache"

    def folder(self, cell: Cell) -> Path:
        """Return a cell's folder."""
        return cell_folder(self.out, cell)


def cell_folder(out: Path, cell: Cell) -> Path:
    """Return a cell's folder in RUN."""
    return out / "cells" / cell.id


def read_result(out: Path, cell: Cell, plan: str | None) -> CellResult | None:
    """Return the result of a cell, None if it has none.

    Args:
        out: RUN.
        cell: Which one.
        plan: Hash that it must have been made under; None for any.

    Raises:
        DataError: The file is damaged, of another cell, or was made under other settings.
    """
    path = cell_folder(out, cell) / RESULT
    if not path.is_file():
        return None
    try:
        found = CellResult.load(path)
    except ConfigError as error:
        raise DataError(
            f"Result '{path}' is damaged: {error.message}", f"Remove folder '{path.parent}' to make it again."
        ) from error
    whole = bool({"classify": found.videos, "judge": found.quality}.get(cell.stage, found.weights_sha256))
    if found.cell != cell.id or not whole:
        wrong = f"is of cell '{found.cell}'" if found.cell != cell.id else "lacks what its cell found"
        raise DataError(f"Result '{path}' {wrong}.", f"Remove folder '{path.parent}' to make it again.")
    if plan is not None and found.plan != plan:
        raise DataError(
            f"Result '{path}' was made with other settings or data than '{out}' states.",
            f"Remove folder '{path.parent}' to make it again.",
        )
    return found


def make_cell(cell: Cell, shop: Workshop) -> CellResult:
    """Do a cell's work, whose needs are done, and write its result.

    Raises:
        UsI2VError: See the commands for training, synthesis and classification.
    """
    begun = time.monotonic()
    work = {"train": _train, "make": _make, "judge": _judge, "classify": _classify}[cell.stage]
    values = work(cell, shop)
    result = CellResult(cell=cell.id, plan=shop.plan, seconds=time.monotonic() - begun, **values)
    write_bytes(shop.folder(cell) / RESULT, result.dump().encode())
    if cell.stage == "classify" and not shop.settings.keep_weights:
        shutil.rmtree(shop.folder(cell) / "run", ignore_errors=True)
    return result


def _train(cell: Cell, shop: Workshop) -> dict[str, Any]:
    folder, settings = shop.folder(cell), shop.settings
    method: MethodName = cell.source  # type: ignore[assignment]
    _link_cache(folder.parent / "cache", shop.cache)
    changes = generator_changes(settings)
    runs: dict[Path, Stage] = {folder / "autoencoder": "autoencoder", folder / "second": METHODS[method].second}

    def train() -> None:
        videos = [split_folder(shop.out, cell.split, cell.fold)]
        train_method(method, videos, folder, settings.preset, changes, reporter=shop.reporter, device=shop.device)

    _finish(
        train, {run: stage_training(settings, method, stage, changes).optimiser.steps for run, stage in runs.items()}
    )
    return {"weights_sha256": load_weights(folder / "second").sha256}


def _make(cell: Cell, shop: Workshop) -> dict[str, Any]:
    settings, videos = shop.settings, split_folder(shop.out, cell.split, cell.fold)
    clips = shop.folder(cell) / "clips"
    found: dict[str, Any] = {}
    with shop.progress(cell.id) as shown:
        if cell.source in MAKERS:
            control = fit_control(cell.source, videos, shop.cache, settings.frames)
            found |= {"weights_sha256": control.identity, "trained": control.trained}
            unreadable = answer_stills(
                control, stills_folder(shop.out), clips, settings, own_label=False, progress=shown
            )
        else:
            model = ImageToVideo.from_pretrained(_weights(cell, shop), shop.device, shop.threads)
            found["weights_sha256"] = model.weights_sha256
            if cell.source == "reconstructed":
                unreadable = {}
                reconstruct(model, videos, shop.cache, clips, settings, shown)
            else:
                unreadable = answer_stills(
                    model,
                    stills_folder(shop.out),
                    clips,
                    settings,
                    own_label=cell.source != "class-blind",
                    speckle=cell.source == "bundled" or METHODS[_method(cell, settings)].speckle,
                    progress=shown,
                )
    found |= {"left_out": unreadable, "clips": len(find_samples(clips, check_groups=False))}
    _check_clips(cell, shop, clips)
    return found


def _check_clips(cell: Cell, shop: Workshop, made: Path) -> None:
    """Raise `DataError` if the clips that were made are fewer of a class than a mix asks for."""
    there = Counter(sample.label for sample in find_samples(made, check_groups=False))
    for place in {(c.split, c.fold) for c in all_cells(shop.settings) if cell in needs(c, shop.settings)}:
        videos = find_samples(split_folder(shop.out, *place))
        real = Counter(sample.label for sample in videos if sample.split == "train")
        check_mixes(shop.settings, real, there, f"{place_name(*place)}: {cell.source}")


def _judge(cell: Cell, shop: Workshop) -> dict[str, Any]:
    (made,) = needs(cell, shop.settings)
    with shop.progress(cell.id) as shown:
        found = judge(
            shop.folder(made) / "clips",
            split_folder(shop.out, cell.split, cell.fold),
            shop.cache,
            classifier_training(shop.settings, NAMES[0], "real", "", 0),
            shown,
        )
    return {"quality": found, "clips": len(found)}


def _classify(cell: Cell, shop: Workshop) -> dict[str, Any]:
    settings, folder = shop.settings, shop.folder(cell)
    run, videos = folder / "run", split_folder(shop.out, cell.split, cell.fold)
    if cell.diet is None or cell.seed is None:
        raise RuntimeError(f"cell '{cell.id}' has no diet or seed")
    config = classifier_training(settings, cell.model, cell.diet, cell.mix, cell.seed)
    sources = _sources(cell, shop, videos)

    def train() -> None:
        resume = (run / CHECKPOINT).exists()
        train_classifier(
            sources, run, config, cache=shop.cache, resume=resume, reporter=shop.reporter, device=shop.device
        )

    _finish(train, {run: config.optimiser.steps})
    trained = load_classifier(run)
    trained.network.to(choose_device(shop.device))
    tested = [sample for sample in find_samples(videos) if sample.split == "test"]
    check_seen(trained, tested)
    with shop.progress(cell.id) as shown:
        given = [(sample, False) for sample in tested]
        said, skipped = classify(trained, given, shop.cache, settings.windows, shown, strict=True)
    made_up = [video.file for video in said if video.generated]
    if made_up:
        raise DataError(
            f"Test video '{made_up[0]}' was generated, by the record in it.", "Take it out, and use another folder."
        )
    names = {str(sample.path): sample.path.name for sample in tested}
    rows = [
        TestedVideo(file=names[v.file], label=str(v.label), group=v.group, probabilities=v.probabilities) for v in said
    ]
    if not rows:
        reason = next(iter(skipped.values()))
        raise DataError(f"No test video of {cell.place} can be classified ({reason}).", "Give longer videos.")
    header = trained.header
    return {
        "clips": header.real_clips + header.synthetic_clips,
        "real": header.real_clips,
        "left_out": {names[file]: why for file, why in skipped.items()},
        "classes": header.classes,
        "videos": tuple(sorted(rows, key=lambda row: row.file)),
    }


def _finish(train: Callable[[], None], steps: dict[Path, int]) -> None:
    """Train what is missing of some runs; begin anew with one that a kill caught after its last checkpoint.

    Resumed, it would have no step left, and not write its weights.
    """
    for run, count in steps.items():
        if not finished(run, count) and checkpoint_step(run / CHECKPOINT) == count:
            shutil.rmtree(run)
    train()
    for run in steps:
        (run / CHECKPOINT).unlink(missing_ok=True)


def _sources(cell: Cell, shop: Workshop, videos: Path) -> Sources:
    """Return where a classifier's clips come from, with what is known of their maker."""
    if not cell.source:
        return Sources((videos,))
    (need,) = needs(cell, shop.settings)
    share = best_share(cell.mix)
    (make,) = (need,) if share is None else needs(need, shop.settings)
    clips = shop.folder(make) / "clips"
    if share is not None:
        clips = keep_best(clips, _done(need, shop).quality, share, f"{cell.place}-{cell.mix}.csv")
    made = _done(make, shop)
    makers = () if made.trained is None else ((made.weights_sha256, made.trained),)
    weights = _weights(make, shop)
    return Sources((videos,), (clips,), () if weights is None else (weights,), makers=makers)


def _done(cell: Cell, shop: Workshop) -> CellResult:
    found = read_result(shop.out, cell, shop.plan)
    if found is None:
        raise RuntimeError(f"cell '{cell.id}' is not done")
    return found


def _weights(cell: Cell, shop: Workshop) -> Path | None:
    """Return the weights that a synthesis uses; None for the bundled ones, and for controls without weights."""
    before = needs(cell, shop.settings)
    return shop.folder(before[0]) / "second" if before else None


def _method(cell: Cell, settings: Table2Settings) -> MethodName:
    (need,) = needs(cell, settings)
    name: MethodName = need.source  # type: ignore[assignment]
    return name


def _link_cache(link: Path, cache: Path) -> None:
    """Let all splits' generators keep decoded clips in one place."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(cache.resolve(), target_is_directory=True)
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(
            f"Cannot link '{cache}' as '{link}': {error.strerror}.", "Choose a folder on a disk with links."
        ) from error
