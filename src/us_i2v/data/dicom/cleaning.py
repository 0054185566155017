"""Cleaning many DICOM files into one folder, with a `manifest.csv` whose groups are the patients' pseudonyms.

Names of files and folders may name patients: unless they are to be kept, a file is called after its patient's pseudonym
and a number. A file that cannot be read is left out and listed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from us_i2v.data.atomic import check_writable
from us_i2v.data.decoding.folders import natural_key
from us_i2v.data.dicom.deidentify import Deidentifier
from us_i2v.data.dicom.detect import is_dicom
from us_i2v.data.manifest import MANIFEST, Sample, kind_of, write_manifest
from us_i2v.errors import DataError, InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.dicom.detect import Regions


class Job(NamedTuple):
    """A file to clean.

    Attributes:
        path: It.
        name: How it is told of: relative to the folder that was given.
        target: Where it goes; None if its name follows from its patient.
    """

    path: Path
    name: str
    target: Path | None


@dataclass
class Outcome:
    """What was done.

    Attributes:
        made: Files written.
        patients: Their pseudonyms.
        with_text: Files in which text was blanked.
        rewritten: Files whose pixels were changed.
        without_region: Files that state no 2-D region.
        unreadable: Name -> why it could not be read.
    """

    made: int = 0
    patients: set[str] = field(default_factory=set)
    with_text: int = 0
    rewritten: int = 0
    without_region: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def plan(inputs: Sequence[Path], output: Path, *, keep_names: bool) -> list[Job]:
    """List the files to clean, in natural order, and check the output.

    Raises:
        DataError: There is no DICOM file, or two would get one name.
        InputError: An input is missing or no DICOM file.
        OutputError: The output cannot be written, lies in an input folder, or is a file for several inputs.
    """
    jobs: list[Job] = []
    for given in inputs:
        if given.is_dir():
            if output.resolve() == given.resolve() or given.resolve() in output.resolve().parents:
                raise OutputError(f"Output '{output}' lies in '{given}', which is read.", "Choose a place beside it.")
            names = [entry.relative_to(given) for entry in given.rglob("*") if is_dicom(entry)]
            for name in sorted(names, key=lambda entry: natural_key(entry.as_posix())):
                jobs.append(Job(given / name, name.as_posix(), output / name if keep_names else None))
        elif not is_dicom(given):
            raise InputError(f"'{given}' is no DICOM file or folder.", "Give files that end in .dcm, or their folder.")
        else:
            jobs.append(Job(given, given.name, output / given.name if keep_names else None))
    if not jobs:
        raise DataError(f"There is no DICOM file in {', '.join(map(str, inputs))}.", "Check the folder.")
    if output.suffix:
        if len(jobs) > 1 or inputs[0].is_dir():
            raise OutputError(f"Output '{output}' is a file; several files need a folder.", "Give a folder: -o clean.")
        jobs = [jobs[0]._replace(target=output)]
    targets = [job.target for job in jobs if job.target is not None]
    if len(set(targets)) < len(targets):
        raise DataError("Two inputs have the same name.", "Clean them in two runs, or leave --keep-names out.")
    check_writable(output if output.suffix else output / MANIFEST)
    return jobs


def clean_files(
    jobs: Sequence[Job],
    output: Path,
    *,
    regions: Regions = "blank",
    blank_text: bool = True,
    salt: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Outcome:
    """Clean all files, then write the manifest if `output` is a folder.

    Args:
        jobs: See `plan`.
        output: Folder, or the file of a single job.
        regions: What to do with what lies outside of the 2-D regions, where a file states some.
        blank_text: Blank burned-in text.
        salt: See `Deidentifier`.
        progress: Told about every file.

    Raises:
        InputError: The only file cannot be read.
        OutputError: Something cannot be written.
    """
    cleaner = Deidentifier(regions=regions, blank_text=blank_text, salt=salt)
    outcome, samples = Outcome(), []
    numbers: dict[str, int] = {}
    for index, job in enumerate(jobs):
        try:
            target = job.target
            if target is None:
                patient = cleaner.pseudonym(job.path)
                numbers[patient] = numbers.get(patient, 0) + 1
                target = output / f"{patient}_{numbers[patient]:04d}.dcm"
            cleaned = cleaner.clean(job.path, target)
        except InputError as error:
            if len(jobs) == 1:
                raise
            outcome.unreadable[job.name] = error.message
            continue
        finally:
            progress(index + 1, len(jobs), job.name)
        outcome.made += 1
        outcome.patients.add(cleaned.patient)
        outcome.with_text += cleaned.text_lines > 0
        outcome.rewritten += cleaned.rewritten
        outcome.without_region += cleaned.regions == 0
        samples.append(_sample(target, output, cleaned.patient))
    if samples and not output.suffix:
        write_manifest(output / MANIFEST, samples)
    return outcome


def _sample(target: Path, output: Path, patient: str) -> Sample:
    """A manifest row; the label is the first folder where names are kept."""
    folder = target.relative_to(output).parts[0] if not output.suffix and target.parent != output else None
    return Sample(target, kind_of(target) or "still", folder, patient)
