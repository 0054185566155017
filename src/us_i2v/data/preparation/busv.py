"""BUSV's download in shape: erratum applied, copies left out, related videos grouped, stable stretches and crops."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v.data.atomic import write_bytes
from us_i2v.data.boxes import BoundingBox, union_box
from us_i2v.data.crops import crop_box, crop_picture, crop_region
from us_i2v.data.datasets.busv import detect, frame_number, list_videos, read_annotations, settle_splits
from us_i2v.data.datasets.busv_erratum import Correction, Video, correct
from us_i2v.data.manifest import Sample
from us_i2v.data.preparation.busv_links import ReadVideo, VideoLink, find_links, group_names, read_video
from us_i2v.data.preparation.output import finish, new_folder, place_file
from us_i2v.data.preparation.report import UNREADABLE, Related, Report, count_labels
from us_i2v.data.stills import read_still
from us_i2v.data.tracks import split_at_gaps, stable_runs
from us_i2v.data.writers import write_still
from us_i2v.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from us_i2v.data.datasets.busv import Annotations
    from us_i2v.data.preparation.options import BusvOptions
    from us_i2v.data.transforms import Box

BOXES = "boxes.csv"

FrameBoxes = tuple[BoundingBox, ...]


@dataclass(frozen=True)
class _Clip:
    """A video, or a stable stretch of one: its name in the new folder, its frames and their boxes."""

    name: str
    video: Video
    files: tuple[Path, ...]
    boxes: tuple[FrameBoxes, ...]
    region: Box | None = None


def prepare_busv(
    source: Path,
    out: Path,
    options: BusvOptions,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Write a data set of BUSV's videos as folders of frames, with manifest.csv, boxes.csv and report.json.

    A video goes to OUT/{class}/{id}, a stable stretch to OUT/{class}/{id}_{first frame}-{last frame}. Videos
    that share frames, or of which two frames are near-duplicates, are one group. Without a ratio the
    annotation files' own split is kept, a group that it divides going to "train".

    Args:
        source: The download: the folder that holds `rawframes`, or `rawframes` itself.
        out: New or empty folder.
        options: What to do.
        progress: Called with (done, total, name) while videos are read, compared and written.

    Raises:
        DataError: The source is not BUSV, an annotation file is damaged, boxes are needed and there are none,
            or nothing is left.
        OutputError: See `output.new_folder`.
    """
    with new_folder(out, source) as folder:
        if not detect(source):
            raise DataError(
                f"Folder '{source}' is not BUSV.", "It needs rawframes/benign and rawframes/malignant with videos."
            )
        annotations = read_annotations(source)
        if (options.stable or options.crop) and not annotations.boxes:
            raise DataError(
                f"There are no annotation files beside the videos of '{source}'; --stable and --crop need boxes.",
                "Put imagenet_vid_train_15frames.json and imagenet_vid_val.json beside 'rawframes'.",
            )
        settings = {key: value for key, value in asdict(options).items() if key != "corrections"}
        report = Report("busv", "videos", settings)
        videos = _corrected(list_videos(source, annotations), options.corrections, report)
        read = _read(videos, report, progress)
        links = find_links(read, progress)
        groups = group_names(read, links)
        kept = _select(read, links, options, report)
        grouped = [replace(read[index].video, group=groups[index]) for index in kept]
        clips: list[_Clip] = []
        for index, video in zip(kept, settle_splits(grouped), strict=True):
            clips += _clips(video, read[index], annotations, options, report)
        samples = []
        for done, clip in enumerate(clips, 1):
            samples.append(_write(clip, folder, options))
            if progress is not None:
                progress(done, len(clips), clip.name)
        if annotations.boxes:
            _write_boxes(folder / BOXES, clips)
        _add_notes(report, clips, annotations, options)
        finish(folder, samples, report, options)
    return report


def _corrected(videos: list[Video], corrections: Sequence[Correction], report: Report) -> list[Video]:
    """Apply the erratum and note what it did."""
    report.before = count_labels([video.label for video in videos])
    result = correct(videos, corrections)
    for name, reason in result.dropped:
        report.leave_out(name, "erratum", reason)
    report.erratum = [{**each._asdict(), "applied": each not in result.missing} for each in corrections]
    if not corrections:
        report.notes.append("erratum: none applied")
    return result.videos


def _read(videos: list[Video], report: Report, progress: Callable[[int, int, str], None] | None) -> list[ReadVideo]:
    read = []
    for done, video in enumerate(videos, 1):
        try:
            read.append(read_video(video))
        except InputError as error:
            report.leave_out(video.name, UNREADABLE, str(error))
        if progress is not None:
            progress(done, len(videos), video.name)
    return read


def _select(read: list[ReadVideo], links: list[VideoLink], options: BusvOptions, report: Report) -> list[int]:
    """Return the videos to write; copies, and with "drop" those of two classes, are noted and left out."""
    gone: set[int] = set()
    for link in links:
        first, second = read[link.first].video, read[link.second].video
        related = Related(first.name, second.name, link.reason)
        report.related.append(related)
        if link.same_picture and first.label != second.label:
            report.conflicts.append(related)
            if options.conflicts == "drop":
                for index, other in ((link.first, second), (link.second, first)):
                    if index not in gone:
                        report.leave_out(read[index].video.name, "two classes", f"{link.reason} with {other.name}")
                        gone.add(index)
    if not options.keep_duplicates:
        for link in links:
            _drop_copy(read, link, gone, report)
    return [index for index in range(len(read)) if index not in gone]


def _drop_copy(read: list[ReadVideo], link: VideoLink, gone: set[int], report: Report) -> None:
    """Leave out the video all of whose frames are in another one of its class: the shorter, else the later."""
    if not link.shared or {link.first, link.second} & gone:
        return
    if read[link.first].video.label != read[link.second].video.label:
        return
    frames = {index: set(read[index].digests) for index in (link.first, link.second)}
    for index, other in ((link.second, link.first), (link.first, link.second)):
        if frames[index] <= frames[other]:
            report.leave_out(read[index].video.name, "duplicate", f"all frames are in {read[other].video.name}")
            gone.add(index)
            return


def _clips(
    video: Video, read: ReadVideo, annotations: Annotations, options: BusvOptions, report: Report
) -> list[_Clip]:
    """Return what is to be written of one video."""
    named = annotations.boxes.get(video.name, {})
    boxes = {frame_number(file): named.get(file.name, ()) for file in read.files}
    files = {frame_number(file): file for file in read.files}
    name = f"{video.label}/{video.folder.name}"
    if options.stable:
        runs = {f"{name}_{run[0]:06d}-{run[-1]:06d}": run for run in stable_runs(boxes)}
        if not runs:
            report.leave_out(video.name, "not stable", "no stretch with one lesion box that stays in place")
    else:
        runs = {name: sorted(files)}
    clips = []
    for title, run in runs.items():
        clip = _Clip(title, video, tuple(files[at] for at in run), tuple(boxes[at] for at in run))
        if options.crop:
            whole = union_box(box for found in clip.boxes for box in found)
            if whole is None:
                report.leave_out(video.name, "no lesion", "it has no box to crop by")
                continue
            clip = replace(clip, region=crop_region(whole, read.size))
        clips.append(clip)
    return clips


def _write(clip: _Clip, folder: Path, options: BusvOptions) -> Sample:
    """Write the frames, as they are or cropped to frame_0000.png ..."""
    place = folder / Path(clip.name)
    for number, file in enumerate(clip.files):
        if clip.region is None:
            place_file(file, place / file.name, options.link)
        else:
            write_still(place / f"frame_{number:04d}.png", crop_picture(read_still(file), clip.region))
    return Sample(place, "clip", clip.video.label, clip.video.group, clip.video.split, fps=options.fps)


def _write_boxes(path: Path, clips: Sequence[_Clip]) -> None:
    """Write one line a box: the clip, the frame from 0 within the clip, and the box in pixels of what was written."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["clip", "frame", *BoundingBox._fields])
    for clip in clips:
        for frame, boxes in enumerate(clip.boxes):
            for box in boxes:
                shown = box if clip.region is None else crop_box(box, clip.region)
                writer.writerow([clip.name, frame, *(f"{value:.2f}" for value in shown)])
    write_bytes(path, out.getvalue().encode())


def _add_notes(report: Report, clips: Sequence[_Clip], annotations: Annotations, options: BusvOptions) -> None:
    """Note what a user of the data must know."""
    gaps = sum(len(split_at_gaps(frame_number(file) for file in clip.files)) > 1 for clip in clips)
    if gaps:
        report.notes.append(f"gaps in the frame numbers: {gaps} videos; --stable divides them there")
    if report.conflicts and options.conflicts == "keep":
        report.notes.append("videos in two classes were kept, in one group; --conflicts drop leaves them out")
    if not annotations.files:
        report.notes.append("no annotation files: no boxes and no split of the data set's own")
    if options.fps is None:
        report.notes.append("frame rate: the release states none; give it by --fps if you know it")
