"""Make a balanced set of clips from a folder of stills, as `us-i2v augment --balance --ext npz` does.

python examples/augment_folder.py STILLS FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from us_i2v.augmentation.planning import collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import synthesise
from us_i2v.data.datasets import find_samples
from us_i2v.pipeline import GenerateOptions, ImageToVideo


def main(stills: Path, folder: Path) -> None:
    """Plan, show the plan, run it."""
    sources = collect_sources(find_samples(stills), stills)
    jobs = plan_jobs(sources, clips_per_image=1, balance=True, seed=0, ending="npz")
    for job in jobs[:5]:
        print(f"{job.source.name} -> {job.output} (seed {job.seed})")

    generator = ImageToVideo.from_pretrained()
    settings = AugmentSettings(
        balance=True,
        ending="npz",
        options=GenerateOptions(frames=8),
        weights_sha256=generator.weights_sha256,
        sources_sha256=sources_sha256(sources),
    )
    rate = 1 / generator.info.frame_interval_s
    outcome = synthesise(generator, jobs, folder, settings, fps=rate)
    print(f"{outcome.made} clips made, {outcome.present} there, {len(outcome.unreadable)} stills skipped")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
